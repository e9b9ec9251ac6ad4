#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/file_io.h"
#include "base/mapped_file.h"

namespace narrow {
namespace {

Error io_error(const std::filesystem::path& path, std::string_view what, int e) {
  return file_error(path, what, e, "; nothing was kept");
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const std::filesystem::path& path) {
  static std::atomic<int> counter{0};
  NARROW_TRY(check_replaceable(path));
  AtomicFile f;
  f.path_ = path;
  f.temp_ = path;
  f.temp_ += fmt::format(".tmp-{}-{}", ::getpid(), counter++);
  f.fd_ = ::open(f.temp_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (f.fd_ < 0) return io_error(path, "create", errno);
  return f;
}

AtomicFile& AtomicFile::operator=(AtomicFile&& o) noexcept {
  if (this != &o) {
    discard();
    path_ = std::move(o.path_);
    temp_ = std::move(o.temp_);
    fd_ = std::exchange(o.fd_, -1);
    end_ = std::exchange(o.end_, 0);
  }
  return *this;
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
  ::unlink(temp_.c_str());
}

Status AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> data) {
  const int e = write_all_at(fd_, offset, data);
  return e == 0 ? Status() : io_error(path_, "write", e);
}

Status AtomicFile::write(std::span<const std::byte> data) {
  NARROW_TRY(write_at(end_, data));
  end_ += data.size();
  return {};
}

Status AtomicFile::write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

Status AtomicFile::commit() {
  if (fd_ < 0) return make_error(ErrorCode::kInternal, "{}: committed twice", path_.string());
  if (::fsync(fd_) != 0) return io_error(path_, "flush", errno);
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) {
    const int e = errno;
    ::unlink(temp_.c_str());
    return io_error(path_, "close", e);
  }
  if (::rename(temp_.c_str(), path_.c_str()) != 0) {
    const int e = errno;
    ::unlink(temp_.c_str());
    return io_error(path_, "rename into place", e);
  }
  return {};
}

Result<std::string> read_text_file(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  NARROW_ASSIGN(const MappedFile file, MappedFile::open(path));
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.size() > limit_bytes) {
    return make_error(ErrorCode::kCorrupt, "{}: {} bytes is over the limit of {} for such a file",
                      path.string(), bytes.size(), limit_bytes);
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code ec;
  return std::filesystem::equivalent(a, b, ec) && !ec;
}

Result<std::uint64_t> free_disk_bytes(const std::filesystem::path& path) {
  std::error_code ec;
  std::filesystem::path p = std::filesystem::absolute(path, ec);
  while (!p.empty() && !std::filesystem::exists(p, ec) && p != p.parent_path()) p = p.parent_path();
  const auto info = std::filesystem::space(p, ec);
  if (ec)
    return make_error(ErrorCode::kIo, "{}: cannot read the free disk space: {}", p.string(), ec.message());
  return static_cast<std::uint64_t>(info.available);
}

}  // namespace narrow

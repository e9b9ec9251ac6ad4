#include "base/partial_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/file_io.h"

namespace narrow {

std::filesystem::path PartialFile::partial_path(const std::filesystem::path& path) {
  std::filesystem::path partial = path;
  partial += ".partial";
  return partial;
}

Result<PartialFile> PartialFile::open(const std::filesystem::path& path, std::uint64_t total_bytes,
                                      bool may_exist) {
  NARROW_TRY(check_replaceable(path));
  PartialFile f;
  f.path_ = path;
  f.partial_ = partial_path(path);
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  f.fd_ = ::open(f.partial_.c_str(), may_exist ? flags : flags | O_EXCL, 0644);
  if (f.fd_ < 0 && errno == EEXIST) {
    return make_error(ErrorCode::kRefused,
                      "{} is in the way and is no unfinished output of narrow's: remove or rename it",
                      f.partial_.string());
  }
  if (f.fd_ < 0) return file_error(f.partial_, "create", errno);
  struct stat info = {};
  if (::fstat(f.fd_, &info) != 0) return file_error(f.partial_, "read", errno);
  f.had_content_ = S_ISREG(info.st_mode) && static_cast<std::uint64_t>(info.st_size) == total_bytes;
  if (f.had_content_) return f;
  // The full size at once: padding after the last tensor exists, and a size limit shows before the work.
  if (::ftruncate(f.fd_, 0) != 0 || ::ftruncate(f.fd_, static_cast<off_t>(total_bytes)) != 0) {
    const int e = errno;
    f.remove();
    return file_error(f.partial_, "write", e);
  }
  return f;
}

PartialFile& PartialFile::operator=(PartialFile&& o) noexcept {
  if (this != &o) {
    close();
    path_ = std::move(o.path_);
    partial_ = std::move(o.partial_);
    fd_ = std::exchange(o.fd_, -1);
    had_content_ = o.had_content_;
  }
  return *this;
}

PartialFile::~PartialFile() { close(); }

void PartialFile::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Status PartialFile::write_at(std::uint64_t offset, std::span<const std::byte> data) {
  const int e = write_all_at(fd_, offset, data);
  return e == 0 ? Status() : file_error(partial_, "write", e);
}

Status PartialFile::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  const int e = read_all_at(fd_, offset, out);
  return e == 0 ? Status() : file_error(partial_, "read back", e);
}

Status PartialFile::sync() { return ::fsync(fd_) == 0 ? Status() : file_error(partial_, "flush", errno); }

Status PartialFile::commit() {
  close();
  if (::rename(partial_.c_str(), path_.c_str()) == 0) return {};
  const int e = errno;
  return file_error(path_, "rename into place", e);
}

void PartialFile::remove() {
  close();
  ::unlink(partial_.c_str());
}

}  // namespace narrow

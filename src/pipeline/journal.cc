#include "pipeline/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "base/file_io.h"
#include "base/result.h"
#include "io/caps.h"

namespace narrow::pipeline {
namespace {

// The file at `path`, locked. An earlier holder may have removed it between open and lock: then the lock is
// on a file without a name, and the next try makes a new one.
Result<int> open_locked(const std::filesystem::path& path) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return file_error(path, "create", errno);
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(fd);
      return make_error(ErrorCode::kRefused,
                        "{} is locked: another narrow writes the same output; wait for it, or stop it first",
                        path.string());
    }
    struct stat held = {}, named = {};
    if (::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
        held.st_dev == named.st_dev) {
      return fd;
    }
    ::close(fd);
  }
  return make_error(ErrorCode::kIo, "{}: cannot be locked: others keep making and removing it",
                    path.string());
}

Result<std::string> read_all(int fd, const std::filesystem::path& path) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return file_error(path, "read", errno);
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size > io::caps::kMaxJsonBytes) {
    return make_error(ErrorCode::kRefused, "{}: {} bytes are too many for a journal of narrow's: remove it",
                      path.string(), size);
  }
  std::string text(size, '\0');
  const int e = read_all_at(fd, 0, std::as_writable_bytes(std::span(text)));
  if (e != 0) return file_error(path, "read", e);
  return text;
}

}  // namespace

std::vector<nlohmann::json> journal_lines(std::string_view text, std::uint64_t* used_bytes) {
  std::vector<nlohmann::json> lines;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) break;
    nlohmann::json line = nlohmann::json::parse(text.substr(begin, end - begin), nullptr, false);
    if (!line.is_object()) break;
    lines.push_back(std::move(line));
    begin = end + 1;
  }
  *used_bytes = begin;
  return lines;
}

Result<Journal> Journal::open(const std::filesystem::path& path, std::string_view magic) {
  NARROW_TRY(check_replaceable(path));
  Journal j;
  j.path_ = path;
  NARROW_ASSIGN(j.fd_, open_locked(path));
  NARROW_ASSIGN(const std::string text, read_all(j.fd_, path));
  const std::string begin = "{\"" + std::string(magic) + "\":";
  const std::size_t n = std::min(begin.size(), text.size());
  if (text.compare(0, n, begin, 0, n) != 0) {
    return make_error(ErrorCode::kRefused,
                      "{} is in the way and is no journal of narrow's: remove or rename it", path.string());
  }
  j.lines_ = journal_lines(text, &j.end_);
  if (j.end_ < text.size() && ::ftruncate(j.fd_, static_cast<off_t>(j.end_)) != 0) {
    return file_error(path, "write", errno);
  }
  return j;
}

Journal& Journal::operator=(Journal&& o) noexcept {
  if (this != &o) {
    close();
    path_ = std::move(o.path_);
    lines_ = std::move(o.lines_);
    end_ = o.end_;
    fd_ = std::exchange(o.fd_, -1);
  }
  return *this;
}

Journal::~Journal() { close(); }

void Journal::close() {
  if (fd_ >= 0) ::close(fd_);  // the lock goes with it
  fd_ = -1;
}

Status Journal::append(const nlohmann::json& line) {
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const int e = write_all_at(fd_, end_, std::as_bytes(std::span(text)));
  if (e != 0) return file_error(path_, "write", e);
  end_ += text.size();
  return {};
}

Status Journal::clear() {
  if (::ftruncate(fd_, 0) != 0) return file_error(path_, "write", errno);
  end_ = 0;
  return {};
}

Status Journal::sync() { return ::fsync(fd_) == 0 ? Status() : file_error(path_, "flush", errno); }

void Journal::remove() {
  ::unlink(path_.c_str());
  close();
}

}  // namespace narrow::pipeline

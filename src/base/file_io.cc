#include "base/file_io.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace narrow {

Error file_error(const std::filesystem::path& path, std::string_view what, int error,
                 std::string_view full_tail) {
  if (error == ENOSPC || error == EDQUOT) {
    return make_error(ErrorCode::kNoSpace, "{}: cannot {}: no space left on the disk{}", path.string(), what,
                      full_tail);
  }
  if (error == EFBIG) {
    return make_error(
        ErrorCode::kNoSpace,
        "{}: cannot {}: over the file size limit of the system or of this process (ulimit -f){}",
        path.string(), what, full_tail);
  }
  return make_error(ErrorCode::kIo, "{}: cannot {}: {}", path.string(), what, std::strerror(error));
}

int write_all_at(int fd, std::uint64_t offset, std::span<const std::byte> data) {
  std::size_t done = 0;
  while (done < data.size()) {
    const ssize_t n = ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    done += static_cast<std::size_t>(n);
  }
  return 0;
}

int read_all_at(int fd, std::uint64_t offset, std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (n == 0) return EIO;
    done += static_cast<std::size_t>(n);
  }
  return 0;
}

void sync_folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

Status check_replaceable(const std::filesystem::path& path) {
  if (path.empty()) return make_error(ErrorCode::kInvalidArgument, "the output path is empty");
  std::error_code ec;
  const std::filesystem::file_status status = std::filesystem::status(path, ec);
  if (std::filesystem::is_directory(status)) {
    return make_error(ErrorCode::kInvalidArgument, "{}: is a folder; give a file name", path.string());
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: is no regular file and is not replaced; name another output", path.string());
  }
  return {};
}

}  // namespace narrow

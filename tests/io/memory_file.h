// A file in memory: thousands of contents in turn, without a disk.
#pragma once

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <string_view>

namespace narrow::io {

class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("narrow-damaged", MFD_CLOEXEC)) {}
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::filesystem::path path() const { return fmt::format("/proc/self/fd/{}", fd_); }
  // False when the system refuses.
  bool set(std::string_view bytes) {
    return ::ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0 &&
           ::pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  }

 private:
  int fd_;
};

}  // namespace narrow::io

// A whole file mapped read-only. Pages come from disk on demand and can be dropped by the kernel.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace narrow {

class MappedFile {
 public:
  MappedFile() = default;
  // kNotFound, or kIo; a directory or device is kInvalidArgument. An empty file maps to zero bytes.
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& o) noexcept { *this = std::move(o); }
  MappedFile& operator=(MappedFile&& o) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that [offset, offset+size) is not needed again soon, so that streaming through
  // a file larger than memory keeps the resident set small.
  void drop(std::size_t offset, std::size_t size) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// The same for any whole pages inside [data, data + size) of a file that is mapped somewhere: they leave the
// resident set and come back from the file when they are read again. Never for memory that is no mapped file.
void drop_mapped_pages(const std::byte* data, std::size_t size);

}  // namespace narrow

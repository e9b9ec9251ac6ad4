// Output that grows under a name of its own over several runs, until it is whole and gets its final name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace narrow {

// "<path>.partial" in the same folder. It stays when the object goes or the process dies, unless remove() or
// commit() was called. Errors name the partial file.
class PartialFile {
 public:
  static std::filesystem::path partial_path(const std::filesystem::path& path);

  // With `total_bytes`, zeros where nothing was written. An existing one is opened with what it holds if
  // `may_exist` (emptied first if its size differs), else it is kRefused: it is none of ours.
  static Result<PartialFile> open(const std::filesystem::path& path, std::uint64_t total_bytes,
                                  bool may_exist);
  PartialFile(PartialFile&& o) noexcept { *this = std::move(o); }
  PartialFile& operator=(PartialFile&& o) noexcept;
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile();

  // Thread-safe.
  Status write_at(std::uint64_t offset, std::span<const std::byte> data);
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const;
  Status sync();    // what was written reaches the disk
  Status commit();  // renames, replacing what has the final name; sync() before
  void remove();

  bool had_content() const { return had_content_; }  // an earlier run's, of the right size
  const std::filesystem::path& path() const { return path_; }

 private:
  PartialFile() = default;
  void close();
  std::filesystem::path path_, partial_;
  int fd_ = -1;
  bool had_content_ = false;
};

}  // namespace narrow

// Output that appears under its final name whole, or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "base/result.h"

namespace narrow {

// Writes to "<path>.tmp-<pid>-<n>" in the same folder; commit() flushes it to disk and renames it. A writer
// that is destroyed without commit() removes its temporary file.
class AtomicFile {
 public:
  static Result<AtomicFile> create(const std::filesystem::path& path);
  AtomicFile(AtomicFile&& o) noexcept { *this = std::move(o); }
  AtomicFile& operator=(AtomicFile&& o) noexcept;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  Status write(std::span<const std::byte> data);  // appends
  Status write(std::string_view text);
  Status write_at(std::uint64_t offset, std::span<const std::byte> data);  // does not move the end
  Status commit();
  std::uint64_t size() const { return end_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  AtomicFile() = default;
  void discard();
  std::filesystem::path path_, temp_;
  int fd_ = -1;
  std::uint64_t end_ = 0;
};

constexpr std::uint64_t kMaxTextBytes = 1ull << 32;  // of texts to calibrate, train or measure on

// Reads a whole small file; larger than `limit_bytes` is kCorrupt.
Result<std::string> read_text_file(const std::filesystem::path& path, std::uint64_t limit_bytes);

// True if both paths lead to the same file, also through links. False when either is missing.
bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

// Free bytes for an unprivileged writer on the file system that holds `path` (or its nearest existing
// parent).
Result<std::uint64_t> free_disk_bytes(const std::filesystem::path& path);

}  // namespace narrow

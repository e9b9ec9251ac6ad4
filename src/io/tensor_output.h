// What the writers share: a set of files that hold tensors at known places, filled in any order from any
// thread, and renamed into place together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "io/written_ranges.h"
#include "tensor/tensor.h"

namespace narrow::io {

// Stored bytes of a tensor that is to be written. kInvalidArgument: a negative dimension, too many elements,
// or rows that are not whole blocks.
Result<std::uint64_t> checked_tensor_bytes(const TensorInfo& info);

class TensorOutput {
 public:
  // kNoSpace when the folder's disk has less than `total_bytes` free.
  static Status check_space(const std::filesystem::path& folder, std::uint64_t total_bytes);

  // Files and tensors are numbered from 0 in the order of these calls, which come before any write().
  // The file gets `total_bytes`; what neither the header nor a tensor covers is zero.
  Status add_file(const std::filesystem::path& path, std::string_view header, std::uint64_t total_bytes);
  void add_tensor(std::string name, std::size_t file, std::uint64_t offset, std::uint64_t bytes);

  // Thread-safe. After an error every later call, and finish(), returns that error.
  Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data);
  // kInternal names a tensor of which bytes were never written. On any error no file stays under a final
  // name.
  Status finish();

  const std::vector<std::filesystem::path>& paths() const { return paths_; }
  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  struct Tensor {
    std::string name;
    std::size_t file = 0;
    std::uint64_t offset = 0, bytes = 0;
    WrittenRanges written;
  };
  Status fail(const Error& e);

  std::vector<AtomicFile> files_;
  std::vector<std::filesystem::path> paths_;
  std::vector<Tensor> tensors_;
  std::uint64_t file_bytes_ = 0;
  std::mutex mutex_;  // guards Tensor::written and failure_
  std::optional<Error> failure_;
};

}  // namespace narrow::io

// Writes GGUF v3, single or split, through AtomicFile: nothing appears under the final name before finish().
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "base/atomic_file.h"
#include "io/gguf/metadata.h"
#include "tensor/tensor.h"

namespace narrow::io::gguf {

struct WriterOptions {
  std::uint32_t alignment = 32;
  // 0: one file. Otherwise a new part starts before a tensor would pass this many bytes, as llama-gguf-split
  // does: "out.gguf" becomes out-00001-of-0000N.gguf and the split.no, split.count, split.tensors.count keys
  // are set.
  std::uint64_t split_max_bytes = 0;
  int split_max_tensors = 0;
};

class Writer {
 public:
  // Fixes metadata and the list of tensors, and writes headers. Sizes follow from the infos, so tensor data
  // may then arrive in any order and from any thread.
  static Result<std::unique_ptr<Writer>> create(const std::filesystem::path& path, const Metadata& metadata,
                                                std::vector<TensorInfo> tensors,
                                                const WriterOptions& options = {});
  virtual ~Writer() = default;
  // Bytes of tensor `index` from `byte_offset` on. Thread-safe. Outside the tensor is kInternal.
  virtual Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) = 0;
  // Checks that every byte of every tensor was written, then renames the parts into place.
  virtual Status finish() = 0;
  // Final paths, and total bytes (headers and padding included).
  virtual const std::vector<std::filesystem::path>& paths() const = 0;
  virtual std::uint64_t file_bytes() const = 0;
};

// Bytes that create() would write in all, for planning; 0 where create() would return an error.
std::uint64_t planned_file_bytes(const Metadata& metadata, const std::vector<TensorInfo>& tensors,
                                 const WriterOptions& options = {});

}  // namespace narrow::io::gguf

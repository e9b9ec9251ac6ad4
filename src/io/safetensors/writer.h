// Writes safetensors, single or sharded with an index, through AtomicFile.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <vector>

#include "base/atomic_file.h"
#include "tensor/tensor.h"

namespace narrow::io::safetensors {

struct WriterOptions {
  std::uint64_t shard_max_bytes =
      5'000'000'000;  // transformers' default; a larger model gets shards and an index
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
};

class Writer {
 public:
  // Writes model.safetensors (or model-0000i-of-0000N.safetensors and model.safetensors.index.json) into
  // `folder`, which must exist. Formats: floats and integers only.
  static Result<std::unique_ptr<Writer>> create(const std::filesystem::path& folder,
                                                std::vector<TensorInfo> tensors,
                                                const WriterOptions& options = {});
  virtual ~Writer() = default;
  virtual Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) = 0;
  virtual Status finish() = 0;
  virtual const std::vector<std::filesystem::path>& paths() const = 0;
};

}  // namespace narrow::io::safetensors

// The tensors of any model file under the names they are stored by, whatever its architecture.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace narrow::pipeline {

struct StoredTensors {
  std::string kind;  // "GGUF v3", "GGUF v3, 3 parts", "safetensors folder, 4 shards", "safetensors file"
  std::string architecture;                                   // "" for a lone safetensors file
  std::vector<std::pair<std::string, std::string>> metadata;  // as text; long arrays shortened
  std::vector<TensorInfo> tensors;
  std::uint64_t file_bytes = 0;
  std::function<TensorView(std::size_t)> view;  // keeps the files open
  std::function<void(std::size_t)> drop;        // the tensor's pages are not needed again soon

  static Result<StoredTensors> open(const std::filesystem::path& model);
  // kNotFound with the nearest names.
  Result<std::size_t> find(const std::string& name) const;
};

}  // namespace narrow::pipeline

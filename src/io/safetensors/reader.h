// Reads safetensors (https://github.com/huggingface/safetensors, format 0.x), single or sharded by index.
// The format does not align tensors: a view's data may lie at any address.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "tensor/tensor.h"

namespace narrow::io::safetensors {

struct StoredTensor {
  TensorInfo info;
  int part = 0;
  std::uint64_t offset = 0;  // from the start of that part's file
};

class Reader {
 public:
  // One .safetensors file. Errors start with the name that the safetensors library gives the same defect
  // (HeaderTooSmall, HeaderTooLarge, InvalidHeaderLength, InvalidHeader, InvalidHeaderDeserialization,
  // TensorInvalidInfo, ValidationOverflow, InvalidOffset, MetadataIncompleteBuffer), then say where and what.
  static Result<Reader> open(const std::filesystem::path& file);
  // A folder with model.safetensors, or with model.safetensors.index.json and its shards. A missing shard, a
  // tensor that its shard lacks and a name in two shards are errors that name both.
  static Result<Reader> open_folder(const std::filesystem::path& folder);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // by name
  const StoredTensor* find(std::string_view name) const;
  TensorView view(const StoredTensor& t) const;
  void drop(const StoredTensor& t) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // "__metadata__"
  const std::vector<MappedFile>& parts() const { return parts_; }

 private:
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
  std::vector<MappedFile> parts_;
};

}  // namespace narrow::io::safetensors

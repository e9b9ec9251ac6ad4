// Reads GGUF v2 and v3 by mmap, single or split ("name-00001-of-00003.gguf": any part opens all).
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "base/mapped_file.h"
#include "io/gguf/metadata.h"
#include "tensor/tensor.h"

namespace narrow::io::gguf {

struct StoredTensor {
  TensorInfo info;           // shape already row-major (reverse of the on-disk order)
  int part = 0;              // index into Reader::parts()
  std::uint64_t offset = 0;  // from the start of that part's file
};

class Reader {
 public:
  // Checks every count, length, dimension product, alignment, offset and type against the files' sizes and
  // caps.h, and that no two tensors overlap or share a name. kCorrupt names file, tensor or key, and value.
  // kUnsupported: big-endian files, versions 1 or > 3, unknown tensor types.
  static Result<Reader> open(const std::filesystem::path& path);

  // True when the file starts with the GGUF magic; reads 4 bytes.
  static bool is_gguf(const std::filesystem::path& path);

  const Metadata& metadata() const { return metadata_; }  // of the first part, without the split.* keys
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;
  TensorView view(const StoredTensor& t) const;
  void drop(const StoredTensor& t) const;  // its pages are not needed again soon
  const std::vector<MappedFile>& parts() const { return parts_; }
  std::uint32_t version() const { return version_; }
  std::uint64_t file_bytes() const;  // of all parts

 private:
  Metadata metadata_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::vector<MappedFile> parts_;
  std::uint32_t version_ = 3;
};

}  // namespace narrow::io::gguf

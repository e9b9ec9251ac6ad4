// One GGUF file's header as stored, checked against the file; reader.cc joins parts.
#pragma once

#include <cstdint>
#include <vector>

#include "base/mapped_file.h"
#include "io/gguf/metadata.h"
#include "tensor/tensor.h"

namespace narrow::io::gguf {

inline constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF" little-endian
inline constexpr std::uint32_t kDefaultAlignment = 32;
inline constexpr std::string_view kAlignmentKey = "general.alignment";
inline constexpr std::string_view kSplitNoKey = "split.no";
inline constexpr std::string_view kSplitCountKey = "split.count";
inline constexpr std::string_view kSplitTensorsKey = "split.tensors.count";

struct ParsedTensor {
  TensorInfo info;
  std::uint64_t offset = 0;  // from the start of the file
};

struct ParsedFile {
  std::uint32_t version = 3;
  Metadata metadata;
  std::vector<ParsedTensor> tensors;  // in stored order
};

// Every error names the file. Nothing is allocated that the file's own size does not bound.
Result<ParsedFile> parse_file(const MappedFile& file);

}  // namespace narrow::io::gguf

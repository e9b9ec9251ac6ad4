// Between Hugging Face folders (safetensors) and GGUF, in f32, f16 or bf16. A file of int8 products becomes a
// folder in the compressed-tensors format (docs/formats/int8.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "narrow/progress.h"
#include "narrow/result.h"

namespace narrow {

struct ConvertOptions {
  std::filesystem::path source;  // GGUF file or Hugging Face folder
  std::filesystem::path output;  // "*.gguf": a GGUF file; else a folder, made new
  std::string type;  // f32, f16, bf16; empty: as stored (quantized sources become f32 in a folder)
  std::uint64_t split_max_bytes = 0;
};

struct ConvertReport {
  std::vector<std::filesystem::path> files;
  std::uint64_t bytes = 0, tensors = 0;
  std::uint64_t overflowed = 0;  // finite values that became infinite in f16/bf16
  std::uint64_t flushed = 0;     // non-zero values that became zero
  std::vector<std::string> notes;
};

Result<ConvertReport> convert(const ConvertOptions& options, ProgressSink& progress = null_progress());

}  // namespace narrow

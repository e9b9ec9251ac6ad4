// Files of int8 products (docs/formats/int8.md) as Hugging Face folders in the compressed-tensors format
// (https://github.com/vllm-project/compressed-tensors), which transformers and vLLM load.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "model/source.h"
#include "narrow/convert.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

// `source` is a GGUF of int8 products. Every linear module but the head becomes "int-quantized": codes of the
// file as they are in MODULE.weight (int8, also those of 4 bits), MODULE.weight_scale ([n, 1] per channel,
// [n, k / 32] for w4a8), and MODULE.input_scale, input_zero_point ([1]) where activations are static. The
// rest, scales too, is in `type`, unset: f32, which alone keeps every bit. The head, and modules that the
// file stores as floats, are in "ignore". kUnsupported: another kind of file, outlier columns (the format has
// no place for them), modules that are no linear ones (GPT-2's).
Result<ConvertReport> write_compressed_tensors(std::shared_ptr<const model::ModelSource> source,
                                               const std::filesystem::path& output,
                                               std::optional<Format> type, std::uint64_t shard_max_bytes,
                                               ProgressSink& progress);

}  // namespace narrow::pipeline

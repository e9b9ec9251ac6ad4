// A quantized file whose tensors training has improved: the same types, shapes and metadata, other codes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "narrow/progress.h"
#include "narrow/result.h"

namespace narrow::pipeline {

struct TrainedTensor {
  std::string name;              // as in the start file
  std::vector<std::byte> bytes;  // stored, in the start file's format and shape
};

// `start` (a GGUF, or any part of a split one) as one GGUF file with other bytes in the named tensors; all
// else is copied. narrow.source.* then says what `start` is, and narrow.recipe is `recipe` with that of
// `start` as its "base". Appears under its name whole or not at all. Errors: kNotFound: `start` has no such
// tensor; kInvalidArgument: one named twice, of another size, or an output that is `start` or a split part's
// name; kNumeric: a trained NaN or infinity; kNoSpace; kCancelled.
Status write_trained(const std::filesystem::path& start, const std::filesystem::path& output,
                     std::span<const TrainedTensor> trained, const nlohmann::json& recipe,
                     ProgressSink& progress);

}  // namespace narrow::pipeline

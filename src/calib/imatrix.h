// llama.cpp's importance matrix files: what llama-imatrix writes and llama-quantize reads.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "calib/stats.h"

namespace narrow::calib {

enum class ImatrixFormat : std::uint8_t {
  kGguf,  // general.type "imatrix"; per matrix <name>.in_sum2 [experts, k] and <name>.counts [experts, 1]
  kDat,   // llama.cpp's before October 2025: per matrix mean squares times calls, one count for all experts
};

// A GGUF also gets <name>.in_sum and <name>.in_abs_max [experts, k] where they are known: llama.cpp passes
// over tensors with other endings than its two. A .dat loses them, the counts of experts and matrices without
// data. The file appears whole or not at all. kInvalidArgument: no statistics.
Status write_imatrix(const ModelStats& stats, const std::filesystem::path& path, ImatrixFormat format);

// Either kind, told apart by content. A .dat does not say how many experts a matrix has (one entry for all:
// see split_experts) nor how many tokens a window had (512 are taken). kCorrupt and kNumeric name the file,
// the tensor and the value: cut off, without its other half, of a length that does not divide, negative or
// not finite. Counts of 0 are data that is not there.
Result<ModelStats> read_imatrix(const std::filesystem::path& path);

}  // namespace narrow::calib

// What calibration knows about the inputs of a model's matrices.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::calib {

// Sums over the rows (tokens) that entered one matrix; in fp64, so that a million rows lose nothing.
struct InputStats {
  std::int64_t k = 0;
  std::int64_t rows = 0;                // that were counted: without those that are not finite
  std::int64_t dropped = 0;             // rows with a NaN or infinity
  std::vector<double> sum, sum_square;  // [k]
  std::vector<float> abs_max;           // [k]
  // [k, k] sums of x x^T; empty unless asked for.
  AlignedBuffer<float> gram;

  // Adds rows of x [m, k]; rows with a NaN or infinity are dropped and counted. with_gram: Hessians too.
  Status add(ops::ConstMatrix x, bool with_gram = false);
  // Adds another one's sums. kInvalidArgument for another k.
  Status merge(const InputStats& other);
  std::vector<float> mean_square() const;  // [k] E[x^2]; empty without rows
};

// By canonical tensor name ("blk.0.ffn_up.weight"): one entry, or one per expert.
struct ModelStats {
  std::map<std::string, std::vector<InputStats>> inputs;
  std::vector<std::string> datasets;  // names of the texts
  std::int64_t chunk_tokens = 0;      // tokens of a window
  std::int64_t chunks = 0;            // windows
};

}  // namespace narrow::calib

// Input columns that are kept out of the integers (LLM.int8(), Dettmers et al. 2022,
// https://arxiv.org/abs/2208.07339): the few that widen the range of nearly every token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/matrix.h"

namespace narrow::quant {

struct OutlierOptions {
  std::int64_t most = 0;  // columns
  // So many of them are those with the largest values, however few tokens have them: a static scale has room
  // for all tokens or clips attention sinks.
  std::int64_t by_size = 0;
  std::span<const float> abs_max;  // [k] of all rows, where x is a sample of them; empty: of x
  double least_gain = 0.01;        // stop when a column takes less than this share off the noise
};

// Columns of x [m, k], ascending: after those by size, chosen one after the other, each the one whose removal
// takes most off the rounding noise of int8 per row, sum over rows of absmax^2 / |x|^2. Rows with a NaN or
// infinity and rows of zeros count for nothing.
std::vector<std::int32_t> choose_outliers(ops::ConstMatrix x, const OutlierOptions& options);

}  // namespace narrow::quant

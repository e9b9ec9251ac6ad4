// Weights as int8 with a scale per output feature, and static scales of activations: the numbers behind the
// integer products of kernels/dense_int8.h. All scales have 12 significant bits (dense_int8_scale there).
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "kernels/dense_int8.h"
#include "ops/matrix.h"
#include "quant/quantizer.h"

namespace narrow::quant {

// Rows of w [n, k] -> codes [n, k] in [-127, 127] and scales [n], w = scale * code, without the outlier
// columns, whose codes are 0. With `search` the scale with the least squared error, weighted by mean_square
// [k] where that is not empty, among absmax / 127 and smaller ones that clip. Threaded; the same bytes for
// any number of threads. `error` (of the other columns) may be null. kNumeric names the first NaN or
// infinity.
Status quantize_int8_rows(const float* w, std::int64_t n, std::int64_t k,
                          std::span<const std::int32_t> outliers, std::span<const float> mean_square,
                          bool search, std::int8_t* codes, float* scales, WeightError* error);

// A static scale's range as a multiple of what was seen: values that calibration did not see are larger.
struct Room {
  double least = 1, most = 1;  // 1 <= least <= most
};

// One scale for all tokens. It holds the largest of the channels' maxima abs_max [k] outside of the outlier
// columns, as what it clips is lost: smaller scales have less error per token on average, but on SmolLM2 the
// KL divergence doubles. Where the samples x [m, k] of the tokens say that rounding is well below what other
// products suffer, it leaves more room. Rows with a NaN or infinity and rows of zeros count for nothing;
// 1 / 127 where nothing but zeros was seen.
float static_scale(ops::ConstMatrix x, std::span<const float> abs_max, std::span<const std::int32_t> outliers,
                   const Room& room);

}  // namespace narrow::quant

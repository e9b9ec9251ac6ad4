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

// One scale for all tokens: the largest value of the samples x [m, k] without their outlier columns / 127.
// Smaller scales, which clip, have less error per token on average, but those they clip are lost: on SmolLM2
// the KL divergence doubles. Rows with a NaN or infinity are left out; 1 / 127 where nothing but zeros was
// seen.
float static_scale(ops::ConstMatrix x, std::span<const std::int32_t> outliers);

}  // namespace narrow::quant

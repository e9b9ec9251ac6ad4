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

// One scale for all tokens, from samples x [m, k] of them without their outlier columns: of the largest value
// / 127 and fractions of it, the one with the least sum over tokens of the output's squared error relative to
// the token's output, taken as sum over i of weight[i] * (error of x[i])^2. weight [k] is the squared norm of
// the products' weights per input. Tokens far beyond all others (attention sinks) are clipped when the rest
// gains more. Rows with a NaN or infinity are left out; a scale of 1 / 127 where nothing but zeros was seen.
float static_scale(ops::ConstMatrix x, std::span<const std::int32_t> outliers, std::span<const float> weight);

}  // namespace narrow::quant

// Half-quadratic quantization (HQQ, Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog): scales that
// lose least in the p-th power of the error, p < 1, so that single large weights do not widen a block's steps
// for all others. Needs no data.
#pragma once

#include "quant/quantizer.h"

namespace narrow::quant {

// min over scales and codes of sum |w - y|^p is split in two: e = w - y is shrunk towards 0 by the proximal
// operator of the p-th power, then w - e is encoded anew by least squares, with a growing penalty. The paper
// moves a zero point; here the format's own encoder fits all scales. Each block keeps the best of the rounds,
// the first of which is round to nearest. stats are not used. Errors as of quantize_rtn.
Status quantize_hqq(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                    const QuantizeSpec& spec, std::byte* out, WeightError* error);

// sum |a - b|^p of the method's objective.
double half_quadratic_loss(const float* a, const float* b, std::int64_t n);

}  // namespace narrow::quant

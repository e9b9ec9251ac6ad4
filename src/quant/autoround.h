// Learned rounding in the manner of AutoRound (Cheng et al. 2023, https://arxiv.org/abs/2309.05516): signed
// gradient descent on an offset V in [-1/2, 1/2] of every weight before it is rounded, and on a factor of
// each block's scale and min, for the layer's output error tr((W - Q) H (W - Q)^T).
#pragma once

#include "quant/quantizer.h"

namespace narrow::quant {

// stats.hessian is required; stats.mean_square weights the first fit of the scales (without it, the Hessian's
// diagonal does). spec.damping: as of gptq, 0 is kRoundingDamping. Gradients pass rounding as if it were not
// there (straight through). A row keeps the best of all steps, by the undamped error of its stored form; the
// first candidate is round to nearest, so no row is worse than that. Formats without scalar codes
// (formats/grid.h) are kUnsupported; other errors as of quantize_rtn.
Status quantize_autoround(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                          const QuantizeSpec& spec, std::byte* out, WeightError* error);

inline constexpr float kRoundingDamping = 0.1f;

}  // namespace narrow::quant

// GPTQ (Frantar et al. 2023, https://arxiv.org/abs/2210.17323) on block formats: codes are chosen one column
// after the other, and each column's error is passed on to the columns that are still open, so that the
// layer's output error tr((W - Q) H (W - Q)^T) stays small. Then rows are refined: coordinate descent over
// codes and least squares for the blocks' f16 factors, both of which only lower that error.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/quantizer.h"

namespace narrow::quant {

// stats.hessian is required. spec.damping: 0 is kDefaultDamping. Formats without a grid (formats/grid.h) are
// kUnsupported. Errors as of quantize_rtn; a Hessian that is not positive definite is damped ten times more,
// again and again, so that no run is lost to it.
Status quantize_gptq(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error);

inline constexpr float kDefaultDamping = 0.3f;

// tr(D H D^T) for D [n, k] = exact - stored rows: the summed squared output error over n features per token.
// hessian [k, k]. On all threads; the same for any number of them.
double output_error(const float* exact, const std::byte* stored, Format format, std::int64_t n,
                    std::int64_t k, const float* hessian);

}  // namespace narrow::quant

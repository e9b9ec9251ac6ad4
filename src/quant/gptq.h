// GPTQ (Frantar et al. 2023, https://arxiv.org/abs/2210.17323) on block formats: codes are chosen unit by
// unit in order of falling activation, and each unit's error is passed on to what is still open, so that the
// layer's output error tr((W - Q) H (W - Q)^T) stays small. Vector codebooks are decided 8 weights at a time
// (block LDL^T rounding, Tseng et al. 2024, QuIP#). Then rows are refined by steps that only lower that
// error: coordinate descent over codes, and least squares for the blocks' f16 factors.
#pragma once

#include <cstdint>

#include "quant/quantizer.h"

namespace narrow::quant {

// Share of each diagonal entry that is added to it. Far more than the paper's 1 %: with block scales and tens
// of thousands of tokens, 1 % halves the error on the tokens seen and loses on others.
inline constexpr float kDefaultDamping = 0.3f;

// stats.hessian is required. spec.damping 0 is kDefaultDamping. A Hessian that is not positive definite is
// damped ten times more, again and again, so that no run is lost to it. No row is worse, by the undamped
// Hessian, than rounding to nearest with the same scales. Formats whose codes cannot be chosen alone are
// kUnsupported; other errors as of quantize_rtn.
Status quantize_gptq(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error);

// tr(D H D^T) for D [n, k] = exact - stored rows: the squared output error summed over n features, per token.
// hessian [k, k]. With a metric G of the outputs [n, n] (LayerStats::output; empty: none), tr(G D H D^T).
// stored null: of nothing, which is the energy of the output. On all threads; the same for any number of
// them.
Result<double> output_error(const float* exact, const std::byte* stored, Format format, std::int64_t n,
                            std::int64_t k, std::span<const float> hessian,
                            std::span<const float> output_metric = {});

}  // namespace narrow::quant

// The method that measures: what loses least on tokens that were not used.
#pragma once

#include "quant/quantizer.h"

namespace narrow::quant {

// Round to nearest and gptq with several dampings are tried on some of the rows and judged by the output
// error on stats.held_out; the best does all rows. Without held_out, gptq with its default damping.
// spec.damping leaves gptq no other. Errors as of quantize_gptq, but that formats it does not know are
// rounded to nearest.
Status quantize_auto(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error);

}  // namespace narrow::quant

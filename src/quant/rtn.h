// Round to nearest: every row is encoded on its own, errors are not compensated elsewhere.
#pragma once

#include "quant/quantizer.h"

namespace narrow::quant {

// The scales come from the format's encoder: searched (spec.search), weighted by stats.mean_square when it is
// there. kInvalidArgument: k is no multiple of the block, or mean_square has another length than k.
// kUnsupported: narrow does not write the format.
Status quantize_rtn(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                    const QuantizeSpec& spec, std::byte* out, WeightError* error);

}  // namespace narrow::quant

// What methods that encode a matrix in stretches of rows share: checks, threads, and what the rows lost.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "quant/quantizer.h"

namespace narrow::quant {

// kUnsupported: narrow does not write the format. kInvalidArgument: k is no multiple of its block, or
// statistics of another length than k (k * k for Hessians).
Status check_matrix(std::string_view method, Format format, std::int64_t n, std::int64_t k,
                    const LayerStats& stats);

// Encodes `rows` rows of w into dst. Called on any thread; what it writes may depend on these rows alone.
using EncodeStretch = std::function<Status(const float* w, std::int64_t rows, std::byte* dst, int thread)>;

// All n rows, `rows_per_item` at a time. With a metric G of the outputs [n, n], the loss is tr(G (W - Q) H (W
// - Q)^T): rows are encoded 32 at a time in order of falling G_ii, and each 32's errors are passed on to
// those that are still open, as GPTQ passes errors on across columns (both sides at once: YAQA, Tseng et al.
// 2025). Empty: rows for themselves. kNumeric names the first row and column with a NaN or infinity. `error`
// may be null.
Status encode_stretches(const float* w, std::int64_t n, std::int64_t k, Format format,
                        std::span<const float> output_metric, std::int64_t rows_per_item,
                        const EncodeStretch& encode, std::byte* out, WeightError* error);

}  // namespace narrow::quant

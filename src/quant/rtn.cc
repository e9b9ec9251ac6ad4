#include "quant/rtn.h"

#include <algorithm>

#include "quant/rows.h"

namespace narrow::quant {

namespace {

// Weights per work item. Fixed, so that the partial sums of the error, and with them their order of addition,
// do not depend on the number of threads.
constexpr std::int64_t kChunkElements = 64 * 1024;

}  // namespace

Status quantize_rtn(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                    const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  NARROW_TRY(check_matrix("rtn", spec.format, n, k, stats));
  EncodeOptions options;
  options.search = spec.search;
  options.importance = stats.mean_square.empty() ? nullptr : stats.mean_square.data();
  const EncodeRow encode_row = format_info(spec.format).encode;
  const std::size_t stride = row_bytes(spec.format, k);
  const auto encode = [&](const float* rows, std::int64_t count, std::byte* dst, int) -> Status {
    for (std::int64_t r = 0; r < count; ++r) {
      encode_row(rows + r * k, dst + static_cast<std::size_t>(r) * stride, k, options);
    }
    return {};
  };
  const std::int64_t rows_per_chunk =
      std::max<std::int64_t>(1, kChunkElements / std::max<std::int64_t>(1, k));
  return encode_stretches(w, n, k, spec.format, stats.output, rows_per_chunk, encode, out, error);
}

}  // namespace narrow::quant

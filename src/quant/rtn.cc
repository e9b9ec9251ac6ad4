#include "quant/rtn.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "base/thread_team.h"

namespace narrow::quant {

namespace {

// Weights per work item. Fixed, so that the partial sums of the error, and with them their order of addition,
// do not depend on the number of threads.
constexpr std::int64_t kChunkElements = 64 * 1024;

}  // namespace

Status quantize_rtn(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                    const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  const FormatInfo& info = format_info(spec.format);
  if (!info.can_encode()) {
    return make_error(ErrorCode::kUnsupported, "{}: narrow reads this type but does not write it", info.name);
  }
  if (n < 0 || k < 0 || k % info.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument, "{}: row length {} is not a multiple of its block of {}",
                      info.name, k, info.block_size);
  }
  const std::span<const float> importance = stats.mean_square;
  if (!importance.empty() && static_cast<std::int64_t>(importance.size()) != k) {
    return make_error(ErrorCode::kInvalidArgument, "rtn: importances for {} inputs, but the rows have {}",
                      importance.size(), k);
  }
  if (error != nullptr) *error = {};
  if (n == 0 || k == 0) return {};

  EncodeOptions options;
  options.search = spec.search;
  options.importance = importance.empty() ? nullptr : importance.data();
  const std::size_t stride = row_bytes(spec.format, k);
  const std::int64_t rows_per_chunk = std::max<std::int64_t>(1, kChunkElements / k);
  const std::int64_t chunks = (n + rows_per_chunk - 1) / rows_per_chunk;
  std::vector<WeightError> partial(error != nullptr ? static_cast<std::size_t>(chunks) : 0);
  std::vector<std::vector<float>> decoded(error != nullptr ? static_cast<std::size_t>(thread_count()) : 0);
  // The first bad element in row-major order, whichever thread meets one first.
  std::atomic<std::int64_t> first_bad{std::numeric_limits<std::int64_t>::max()};

  parallel_for(chunks, [&](std::int64_t chunk, int thread) {
    const std::int64_t end = std::min(n, (chunk + 1) * rows_per_chunk);
    for (std::int64_t r = chunk * rows_per_chunk; r < end; ++r) {
      const float* row = w + r * k;
      const std::int64_t bad = find_non_finite(row, k);
      if (bad >= 0) {
        const std::int64_t at = r * k + bad;
        std::int64_t seen = first_bad.load();
        while (at < seen && !first_bad.compare_exchange_weak(seen, at)) {
        }
        return;
      }
      std::byte* dst = out + static_cast<std::size_t>(r) * stride;
      info.encode(row, dst, k, options);
      if (error != nullptr) {
        std::vector<float>& y = decoded[static_cast<std::size_t>(thread)];
        y.resize(static_cast<std::size_t>(k));
        info.decode(dst, y.data(), k);
        partial[static_cast<std::size_t>(chunk)].add_values(row, y.data(), k);
      }
    }
  });

  if (const std::int64_t bad = first_bad.load(); bad != std::numeric_limits<std::int64_t>::max()) {
    return make_error(ErrorCode::kNumeric,
                      "weight at row {}, column {} is {}; a model with such weights cannot be quantized",
                      bad / k, bad % k, w[bad]);
  }
  if (error != nullptr) {
    for (const WeightError& p : partial) error->add(p);
  }
  return {};
}

}  // namespace narrow::quant

#include "quant/rows.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "base/thread_team.h"

namespace narrow::quant {

Status check_matrix(std::string_view method, Format format, std::int64_t n, std::int64_t k,
                    const LayerStats& stats) {
  const FormatInfo& info = format_info(format);
  if (!info.can_encode()) {
    return make_error(ErrorCode::kUnsupported, "{}: narrow reads this type but does not write it", info.name);
  }
  if (n < 0 || k < 0 || k % info.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument, "{}: row length {} is not a multiple of its block of {}",
                      info.name, k, info.block_size);
  }
  const auto width = static_cast<std::size_t>(k);
  if (!stats.mean_square.empty() && stats.mean_square.size() != width) {
    return make_error(ErrorCode::kInvalidArgument, "{}: importances for {} inputs, but the rows have {}",
                      method, stats.mean_square.size(), k);
  }
  for (const std::span<const float> h : {stats.hessian, stats.held_out}) {
    if (h.empty() || h.size() == width * width) continue;
    return make_error(ErrorCode::kInvalidArgument, "{}: a Hessian of {} values for {} inputs", method,
                      h.size(), k);
  }
  return {};
}

Status encode_stretches(const float* w, std::int64_t n, std::int64_t k, Format format,
                        std::int64_t rows_per_item, const EncodeStretch& encode, std::byte* out,
                        WeightError* error) {
  if (error != nullptr) *error = {};
  if (n == 0 || k == 0) return {};
  const FormatInfo& info = format_info(format);
  const std::size_t stride = row_bytes(format, k);
  const std::int64_t items = (n + rows_per_item - 1) / rows_per_item;
  std::vector<WeightError> partial(static_cast<std::size_t>(error != nullptr ? items : 0));
  std::vector<Status> status(static_cast<std::size_t>(items));
  std::vector<std::vector<float>> decoded(static_cast<std::size_t>(error != nullptr ? thread_count() : 0));
  // The first bad element in row-major order, whichever thread meets one first.
  std::atomic<std::int64_t> first_bad{std::numeric_limits<std::int64_t>::max()};

  parallel_for(items, [&](std::int64_t item, int thread) {
    const std::int64_t begin = item * rows_per_item, rows = std::min(rows_per_item, n - begin);
    const float* from = w + begin * k;
    if (const std::int64_t bad = find_non_finite(from, rows * k); bad >= 0) {
      const std::int64_t at = begin * k + bad;
      std::int64_t seen = first_bad.load();
      while (at < seen && !first_bad.compare_exchange_weak(seen, at)) {
      }
      return;
    }
    std::byte* dst = out + static_cast<std::size_t>(begin) * stride;
    status[static_cast<std::size_t>(item)] = encode(from, rows, dst, thread);
    if (error == nullptr) return;
    std::vector<float>& y = decoded[static_cast<std::size_t>(thread)];
    y.resize(static_cast<std::size_t>(k));
    for (std::int64_t r = 0; r < rows; ++r) {
      info.decode(dst + static_cast<std::size_t>(r) * stride, y.data(), k);
      partial[static_cast<std::size_t>(item)].add_values(from + r * k, y.data(), k);
    }
  });

  if (const std::int64_t bad = first_bad.load(); bad != std::numeric_limits<std::int64_t>::max()) {
    return make_error(ErrorCode::kNumeric,
                      "weight at row {}, column {} is {}; a model with such weights cannot be quantized",
                      bad / k, bad % k, w[bad]);
  }
  for (const Status& s : status) NARROW_TRY(s);
  for (const WeightError& p : partial) error->add(p);
  return {};
}

}  // namespace narrow::quant

#include "calib/stats.h"

#include <algorithm>
#include <cmath>

#include "base/thread_team.h"
#include "formats/format.h"
#include "ops/gram.h"

namespace narrow::calib {

Status InputStats::add(ops::ConstMatrix x, bool with_gram) {
  if (k == 0) {
    k = x.cols;
    sum.assign(static_cast<std::size_t>(k), 0.0);
    sum_square.assign(static_cast<std::size_t>(k), 0.0);
    abs_max.assign(static_cast<std::size_t>(k), 0.0f);
  }
  if (x.cols != k) {
    return make_error(ErrorCode::kInvalidArgument, "statistics of {} inputs cannot take rows of {}", k,
                      x.cols);
  }
  std::vector<std::int64_t> good;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    if (find_non_finite(x.row(r), k) < 0) good.push_back(r);
  }
  dropped += x.rows - static_cast<std::int64_t>(good.size());
  rows += static_cast<std::int64_t>(good.size());
  constexpr std::int64_t kColumns = 64;
  parallel_for((k + kColumns - 1) / kColumns, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kColumns, end = std::min(k, begin + kColumns);
    for (const std::int64_t r : good) {
      const float* row = x.row(r);
      for (std::int64_t c = begin; c < end; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double v = row[c];
        sum[i] += v;
        sum_square[i] += v * v;
        abs_max[i] = std::max(abs_max[i], std::fabs(row[c]));
      }
    }
  });
  if (!with_gram) return {};
  if (gram.size() == 0) {
    gram.resize(static_cast<std::size_t>(k * k));
    std::fill_n(gram.data(), gram.size(), 0.0f);
  }
  if (static_cast<std::int64_t>(good.size()) == x.rows) return ops::add_gram(x, gram.data());
  AlignedBuffer<float> kept(good.size() * static_cast<std::size_t>(k));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::copy(x.row(good[i]), x.row(good[i]) + k, kept.data() + static_cast<std::int64_t>(i) * k);
  }
  return ops::add_gram({kept.data(), static_cast<std::int64_t>(good.size()), k}, gram.data());
}

Status InputStats::merge(const InputStats& other) {
  if (other.k == 0) return {};
  if (k == 0) {
    k = other.k;
    sum.assign(other.sum.size(), 0.0);
    sum_square.assign(other.sum.size(), 0.0);
    abs_max.assign(other.sum.size(), 0.0f);
  }
  if (other.k != k) {
    return make_error(ErrorCode::kInvalidArgument, "statistics of {} inputs and of {} cannot be merged", k,
                      other.k);
  }
  rows += other.rows;
  dropped += other.dropped;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i] += other.sum[i];
    sum_square[i] += other.sum_square[i];
    abs_max[i] = std::max(abs_max[i], other.abs_max[i]);
  }
  if (other.gram.size() == 0) return {};
  if (gram.size() == 0) {
    gram.resize(other.gram.size());
    std::fill_n(gram.data(), gram.size(), 0.0f);
  }
  for (std::size_t i = 0; i < gram.size(); ++i) gram[i] += other.gram[i];
  return {};
}

std::vector<float> InputStats::mean_square() const {
  std::vector<float> out;
  if (rows == 0) return out;
  for (const double s : sum_square) out.push_back(static_cast<float>(s / static_cast<double>(rows)));
  return out;
}

}  // namespace narrow::calib

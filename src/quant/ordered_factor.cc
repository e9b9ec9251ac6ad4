#include "quant/ordered_factor.h"

#include <algorithm>
#include <numeric>

#include "ops/cholesky.h"

namespace narrow::quant {
namespace {

constexpr int kAttempts = 8;  // at damping
// Of the mean diagonal entry: what a channel that never fired counts, so that its weights stay near their
// values.
constexpr float kFloor = 1e-4f;

// Units by falling diagonal entries: what matters most is decided while the most can still make up for it.
std::vector<std::int64_t> falling_order(std::span<const float> m, std::int64_t n, int unit) {
  std::vector<double> size(static_cast<std::size_t>(n / unit), 0.0);
  for (std::int64_t j = 0; j < n; ++j) {
    size[static_cast<std::size_t>(j / unit)] += static_cast<double>(m[static_cast<std::size_t>(j * n + j)]);
  }
  std::vector<std::int64_t> units(size.size()), order;
  std::iota(units.begin(), units.end(), 0);
  std::stable_sort(units.begin(), units.end(), [&](std::int64_t a, std::int64_t b) {
    return size[static_cast<std::size_t>(a)] > size[static_cast<std::size_t>(b)];
  });
  for (const std::int64_t u : units) {
    for (int i = 0; i < unit; ++i) order.push_back(u * unit + i);
  }
  return order;
}

}  // namespace

Result<OrderedFactor> ordered_factor(std::span<const float> m, std::int64_t n, int unit, float damping) {
  OrderedFactor f;
  f.order = falling_order(m, n, unit);
  f.u.resize(m.size());
  double mean = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    mean += static_cast<double>(m[static_cast<std::size_t>(j * n + j)]) / static_cast<double>(n);
  }
  if (!(mean > 0)) mean = 1;
  f.floor = kFloor * static_cast<float>(mean);
  f.damping = damping;
  Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt, f.damping *= 10) {
    for (std::int64_t i = 0; i < n; ++i) {
      const float* row = m.data() + f.order[static_cast<std::size_t>(i)] * n;
      float* to = f.u.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) to[j] = row[f.order[static_cast<std::size_t>(j)]];
      to[i] += f.damping * to[i] + f.floor;
    }
    status = ops::inverse_factor(n, f.u.data(), f.u.data());
    if (status.ok()) return f;
  }
  return status.error();
}

}  // namespace narrow::quant

#include "ops/simulate.h"

#include <algorithm>
#include <cmath>

#include "base/thread_team.h"
#include "kernels/packed.h"

namespace narrow::ops {
namespace {

constexpr std::int64_t kFeatures = 16;  // per item of parallel work
constexpr std::int64_t kLanes = 8;

// Exact in any order.
double exact_dot(const float* x, const float* w, std::int64_t k) {
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (std::int64_t l = 0; l < kLanes; ++l) {
      lanes[l] += static_cast<double>(x[i + l]) * static_cast<double>(w[i + l]);
    }
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  for (; i < k; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(w[i]);
  return sum;
}

// In units of the row's scale a group's sum is that of the kernels before it meets the scale.
float grouped_dot(const float* x, float scale, const float* w, std::int64_t k) {
  if (scale == 0.0f) return 0.0f;
  float y = 0.0f;
  for (std::int64_t g = 0; g < k; g += kernels::kActivationGroup) {
    const double sum = exact_dot(x + g, w + g, kernels::kActivationGroup);
    y = std::fma(static_cast<float>(sum / static_cast<double>(scale)), scale, y);
  }
  return y;
}

}  // namespace

void multiply_simulated(const Activations& x, const Product& p) {
  const ConstMatrix rows = x.simulated();
  const std::int64_t k = rows.cols;
  parallel_for((p.out.cols + kFeatures - 1) / kFeatures, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kFeatures, end = std::min(p.out.cols, begin + kFeatures);
    for (std::int64_t t = 0; t < rows.rows; ++t) {
      for (std::int64_t n = begin; n < end; ++n) {
        const float* w = p.weight.simulated + n * k;
        p.out.row(t)[n] = p.weight.dense != nullptr ? static_cast<float>(exact_dot(rows.row(t), w, k))
                                                    : grouped_dot(rows.row(t), x.tokens().scale[t], w, k);
      }
    }
    add_outliers(x, p, begin, end);
  });
}

void add_outliers(const Activations& x, const Product& p, std::int64_t begin, std::int64_t end) {
  const ConstMatrix left = x.outliers();
  if (p.weight.outlier_rows == nullptr) return;
  constexpr std::int64_t kTile = 64;
  for (std::int64_t first = begin; first < end; first += kTile) {
    const std::int64_t count = std::min(kTile, end - first);
    for (std::int64_t t = 0; t < left.rows; ++t) {
      float sums[kTile] = {};
      for (std::int64_t c = 0; c < left.cols; ++c) {
        const float* w = p.weight.outlier_rows + c * p.weight.n() + first;
        const float v = left.row(t)[c];
        for (std::int64_t i = 0; i < count; ++i) sums[i] = std::fma(v, w[i], sums[i]);
      }
      float* y = p.out.row(t) + first;
      for (std::int64_t i = 0; i < count; ++i) y[i] += sums[i];
    }
  }
}

}  // namespace narrow::ops

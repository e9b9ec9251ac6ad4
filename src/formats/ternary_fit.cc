#include "formats/ternary_fit.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "formats/block.h"
#include "formats/fit.h"

namespace narrow::formats {
namespace {

// For a given d the elements above d/2 take +-1, so the best support is some prefix in order of magnitude. A
// prefix with weighted sum S and weight W has its best scale at S/W and lowers the error by S^2/W.
float least_squares_scale(const float* x, const float* w) {
  std::array<std::uint16_t, kSuperBlock> order;
  for (std::size_t j = 0; j < order.size(); ++j) order[j] = static_cast<std::uint16_t>(j);
  std::sort(order.begin(), order.end(), [x](std::uint16_t a, std::uint16_t b) {
    const float xa = std::fabs(x[a]), xb = std::fabs(x[b]);
    return xa != xb ? xa > xb : a < b;
  });
  double sum = 0, weight = 0, best_gain = 0, scale = 0;
  for (const std::uint16_t j : order) {
    sum += static_cast<double>(w[j]) * std::fabs(x[j]);
    weight += w[j];
    if (weight > 0 && sum * sum > best_gain * weight) {
      best_gain = sum * sum / weight;
      scale = sum / weight;
    }
  }
  return static_cast<float>(scale);
}

}  // namespace

f16 fit_ternary(const float* src, const float* importance, bool search, std::uint8_t* t) {
  float x[kSuperBlock], w[kSuperBlock];
  const Normalizer unit = normalize(src, kSuperBlock, x);
  float scale = 0;
  if (search) {
    fill_weights(WeightRule::kUniform, x, importance, kSuperBlock, w);
    scale = least_squares_scale(x, w);
  } else {
    for (const float v : x) scale = std::max(scale, std::fabs(v));
  }
  const f16 d = unit.store(scale);
  const float half = 0.5f * unit.load(d);
  for (int j = 0; j < kSuperBlock; ++j) {
    t[j] = static_cast<std::uint8_t>(1 + (half > 0 && x[j] >= half ? 1 : 0) -
                                     (half > 0 && x[j] <= -half ? 1 : 0));
  }
  return d;
}

}  // namespace narrow::formats

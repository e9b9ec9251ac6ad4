#include "formats/element_weights.h"

#include <algorithm>

namespace narrow::formats {

void element_weights(const float* importance, int n, float* w) {
  const float top = importance != nullptr ? *std::max_element(importance, importance + n) : 0.0f;
  for (int j = 0; j < n; ++j) w[j] = top > 0 ? importance[j] / top : 1.0f;
}

void load_clamped(const float* src, int n, float* x) {
  constexpr float kLimit = 1e15f;
  for (int j = 0; j < n; ++j) x[j] = std::clamp(src[j], -kLimit, kLimit);
}

f16 to_finite_f16(float f) {
  constexpr float kMaxF16 = 65504.0f;
  return to_f16(std::clamp(f, -kMaxF16, kMaxF16));
}

}  // namespace narrow::formats

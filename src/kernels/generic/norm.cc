#include <cmath>

#include "kernels/generic/kernels.h"
#include "kernels/generic/lanes.h"

namespace narrow::kernels::generic {

void rms_norm(const float* x, const float* gain, float eps, float* y, std::int64_t k) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (std::int64_t i = 0; i < k; ++i) y[i] = x[i] * scale * gain[i];
}

void layer_norm(const float* x, const float* gain, const float* bias, float eps, float* y, std::int64_t k) {
  Lanes sum;
  for (std::int64_t i = 0; i < k; ++i) sum.of(i) += x[i];
  const float mean = sum.sum() / static_cast<float>(k);
  Lanes squares;
  for (std::int64_t i = 0; i < k; ++i) squares.of(i) = std::fma(x[i] - mean, x[i] - mean, squares.of(i));
  const float variance = squares.sum() / static_cast<float>(k);
  const float scale = 1.0f / std::sqrt(variance + eps);
  for (std::int64_t i = 0; i < k; ++i) {
    const float normed = (x[i] - mean) * scale * gain[i];
    y[i] = bias == nullptr ? normed : normed + bias[i];
  }
}

}  // namespace narrow::kernels::generic

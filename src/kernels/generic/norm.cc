#include <cmath>

#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

void rms_norm(const float* x, const float* gain, float eps, float* y, std::int64_t k) {
  double squares = 0.0;
  for (std::int64_t i = 0; i < k; ++i) squares += static_cast<double>(x[i]) * x[i];
  const float mean = static_cast<float>(squares / static_cast<double>(k));
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (std::int64_t i = 0; i < k; ++i) y[i] = x[i] * scale * gain[i];
}

void layer_norm(const float* x, const float* gain, const float* bias, float eps, float* y, std::int64_t k) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < k; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(k);
  double squares = 0.0;
  for (std::int64_t i = 0; i < k; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float variance = static_cast<float>(squares / static_cast<double>(k));
  const float scale = 1.0f / std::sqrt(variance + eps);
  for (std::int64_t i = 0; i < k; ++i) {
    const float normed = (x[i] - static_cast<float>(mean)) * scale * gain[i];
    y[i] = bias == nullptr ? normed : normed + bias[i];
  }
}

}  // namespace narrow::kernels::generic

#include <cmath>
#include <numbers>

#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

void silu(float* x, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) x[i] = x[i] / (1.0f + std::exp(-x[i]));
}

void gelu_tanh(float* x, std::int64_t k) {
  const float c = std::numbers::sqrt2_v<float> * std::numbers::inv_sqrtpi_v<float>;  // sqrt(2 / pi)
  for (std::int64_t i = 0; i < k; ++i) {
    const float v = x[i];
    x[i] = 0.5f * v * (1.0f + std::tanh(c * (v + 0.044715f * v * v * v)));
  }
}

void gelu_erf(float* x, std::int64_t k) {
  const float r = 1.0f / std::numbers::sqrt2_v<float>;
  for (std::int64_t i = 0; i < k; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * r));
}

void relu(float* x, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

void silu_mul(float* gate, const float* up, std::int64_t k) {
  silu(gate, k);
  mul_f32(up, gate, k);
}

void gelu_tanh_mul(float* gate, const float* up, std::int64_t k) {
  gelu_tanh(gate, k);
  mul_f32(up, gate, k);
}

}  // namespace narrow::kernels::generic

#include <cmath>

#include "kernels/generic/exp.h"
#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

void silu(float* x, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) x[i] = x[i] / (1.0f + exp_f32(-x[i]));
}

// 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
void gelu_tanh(float* x, std::int64_t k) {
  const float c = -2.0f * 0.79788456080286536f;
  for (std::int64_t i = 0; i < k; ++i) {
    const float v = x[i];
    const float inner = std::fma(0.044715f * (v * v), v, v);
    x[i] = v / (1.0f + exp_f32(c * inner));
  }
}

// x / 2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x| / 2 erfc(|x| / sqrt 2), where erfc(z) = t p(t) e^-z^2 with
// t = 1 / (1 + 0.3275911 z), absolute error 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26). erfc is 0 long
// before the limit of |x|, which keeps infinity out of the product.
void gelu_erf(float* x, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) {
    const float v = x[i];
    const float size = std::abs(v) > 100.0f ? 100.0f : std::abs(v);
    const float z = size * 0.70710678118654752f;
    const float t = 1.0f / std::fma(0.3275911f, z, 1.0f);
    float p = 1.061405429f;
    p = std::fma(p, t, -1.453152027f);
    p = std::fma(p, t, 1.421413741f);
    p = std::fma(p, t, -0.284496736f);
    p = std::fma(p, t, 0.254829592f);
    const float erfc = p * t * exp_f32(-(z * z));
    x[i] = std::fma(-(0.5f * size), erfc, v > 0.0f ? v : 0.0f);
  }
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

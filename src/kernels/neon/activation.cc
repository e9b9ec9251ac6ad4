#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {

void silu(float* x, std::int64_t k) {
  map_ps(x, k, [](float32x4_t v) { return silu_ps(v); });
}

void gelu_tanh(float* x, std::int64_t k) {
  map_ps(x, k, [](float32x4_t v) { return gelu_tanh_ps(v); });
}

void gelu_erf(float* x, std::int64_t k) {
  map_ps(x, k, [](float32x4_t v) { return gelu_erf_ps(v); });
}

void silu_mul(float* gate, const float* up, std::int64_t k) {
  map_mul_ps(gate, up, k, [](float32x4_t v) { return silu_ps(v); });
}

void gelu_tanh_mul(float* gate, const float* up, std::int64_t k) {
  map_mul_ps(gate, up, k, [](float32x4_t v) { return gelu_tanh_ps(v); });
}

}  // namespace narrow::kernels::neon

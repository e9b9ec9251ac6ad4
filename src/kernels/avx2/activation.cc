#include "kernels/avx2/kernels.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {

void silu(float* x, std::int64_t k) {
  const __m256 one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();
  map_ps(x, k,
         [=](__m256 v) { return _mm256_div_ps(v, _mm256_add_ps(one, exp_ps(_mm256_sub_ps(zero, v)))); });
}

void gelu_tanh(float* x, std::int64_t k) {
  // 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
  const __m256 one = _mm256_set1_ps(1.0f), cubic = _mm256_set1_ps(0.044715f);
  const __m256 c = _mm256_set1_ps(-2.0f * 0.79788456080286536f);
  map_ps(x, k, [=](__m256 v) {
    const __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(cubic, _mm256_mul_ps(v, v)), v, v);
    return _mm256_div_ps(v, _mm256_add_ps(one, exp_ps(_mm256_mul_ps(c, inner))));
  });
}

}  // namespace narrow::kernels::avx2

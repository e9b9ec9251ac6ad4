#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"

namespace narrow::kernels::avx512_vnni {

void silu(float* x, std::int64_t k) {
  const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
  map_ps(x, k,
         [=](__m512 v) { return _mm512_div_ps(v, _mm512_add_ps(one, exp_ps(_mm512_sub_ps(zero, v)))); });
}

void gelu_tanh(float* x, std::int64_t k) {
  // 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
  const __m512 one = _mm512_set1_ps(1.0f), cubic = _mm512_set1_ps(0.044715f);
  const __m512 c = _mm512_set1_ps(-2.0f * 0.79788456080286536f);
  map_ps(x, k, [=](__m512 v) {
    const __m512 inner = _mm512_fmadd_ps(_mm512_mul_ps(cubic, _mm512_mul_ps(v, v)), v, v);
    return _mm512_div_ps(v, _mm512_add_ps(one, exp_ps(_mm512_mul_ps(c, inner))));
  });
}

}  // namespace narrow::kernels::avx512_vnni

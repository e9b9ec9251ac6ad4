#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"

namespace narrow::kernels::avx512_vnni {
namespace {

// gate[i] = f(gate[i]) * up[i]
template <class F>
static inline void map_mul_ps(float* gate, const float* up, std::int64_t k, F f) {
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    _mm512_storeu_ps(gate + i, _mm512_mul_ps(f(_mm512_loadu_ps(gate + i)), _mm512_loadu_ps(up + i)));
  }
  if (i == k) return;
  const __mmask16 mask = tail_mask(k - i);
  const __m512 v = f(_mm512_maskz_loadu_ps(mask, gate + i));
  _mm512_mask_storeu_ps(gate + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, up + i)));
}

static inline __m512 silu_of(__m512 v) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(v, _mm512_add_ps(one, exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), v))));
}

// 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
static inline __m512 gelu_tanh_of(__m512 v) {
  const __m512 one = _mm512_set1_ps(1.0f), cubic = _mm512_set1_ps(0.044715f);
  const __m512 c = _mm512_set1_ps(-2.0f * 0.79788456080286536f);
  const __m512 inner = _mm512_fmadd_ps(_mm512_mul_ps(cubic, _mm512_mul_ps(v, v)), v, v);
  return _mm512_div_ps(v, _mm512_add_ps(one, exp_ps(_mm512_mul_ps(c, inner))));
}

// generic/activation.cc says why.
static inline __m512 gelu_erf_of(__m512 v) {
  const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
  const __m512 size = _mm512_min_ps(_mm512_set1_ps(100.0f), _mm512_abs_ps(v));
  const __m512 z = _mm512_mul_ps(size, _mm512_set1_ps(0.70710678118654752f));
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(0.3275911f), z, one));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  const __m512 erfc = _mm512_mul_ps(_mm512_mul_ps(p, t), exp_ps(_mm512_sub_ps(zero, _mm512_mul_ps(z, z))));
  return _mm512_fnmadd_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), size), erfc, _mm512_max_ps(v, zero));
}

}  // namespace

void silu(float* x, std::int64_t k) {
  map_ps(x, k, [](__m512 v) { return silu_of(v); });
}
void gelu_tanh(float* x, std::int64_t k) {
  map_ps(x, k, [](__m512 v) { return gelu_tanh_of(v); });
}
void gelu_erf(float* x, std::int64_t k) {
  map_ps(x, k, [](__m512 v) { return gelu_erf_of(v); });
}
void silu_mul(float* gate, const float* up, std::int64_t k) {
  map_mul_ps(gate, up, k, [](__m512 v) { return silu_of(v); });
}
void gelu_tanh_mul(float* gate, const float* up, std::int64_t k) {
  map_mul_ps(gate, up, k, [](__m512 v) { return gelu_tanh_of(v); });
}

}  // namespace narrow::kernels::avx512_vnni

#include "kernels/avx2/kernels.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {
namespace {

// gate[i] = f(gate[i]) * up[i]; the last few go through padded buffers.
template <class F>
static inline void map_mul_ps(float* gate, const float* up, std::int64_t k, F f) {
  std::int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    _mm256_storeu_ps(gate + i, _mm256_mul_ps(f(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
  }
  if (i == k) return;
  alignas(32) float tail[8] = {};
  for (std::int64_t j = i; j < k; ++j) tail[j - i] = gate[j];
  _mm256_store_ps(tail, f(_mm256_load_ps(tail)));
  for (std::int64_t j = i; j < k; ++j) gate[j] = tail[j - i] * up[j];
}

static inline __m256 silu_of(__m256 v) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(v, _mm256_add_ps(one, exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), v))));
}

// 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
static inline __m256 gelu_tanh_of(__m256 v) {
  const __m256 one = _mm256_set1_ps(1.0f), cubic = _mm256_set1_ps(0.044715f);
  const __m256 c = _mm256_set1_ps(-2.0f * 0.79788456080286536f);
  const __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(cubic, _mm256_mul_ps(v, v)), v, v);
  return _mm256_div_ps(v, _mm256_add_ps(one, exp_ps(_mm256_mul_ps(c, inner))));
}

// generic/activation.cc says why.
static inline __m256 gelu_erf_of(__m256 v) {
  const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
  const __m256 size = _mm256_min_ps(_mm256_set1_ps(100.0f), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v));
  const __m256 z = _mm256_mul_ps(size, _mm256_set1_ps(0.70710678118654752f));
  const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(_mm256_set1_ps(0.3275911f), z, one));
  __m256 p = _mm256_set1_ps(1.061405429f);
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-1.453152027f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.421413741f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.284496736f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.254829592f));
  const __m256 erfc = _mm256_mul_ps(_mm256_mul_ps(p, t), exp_ps(_mm256_sub_ps(zero, _mm256_mul_ps(z, z))));
  return _mm256_fnmadd_ps(_mm256_mul_ps(_mm256_set1_ps(0.5f), size), erfc, _mm256_max_ps(v, zero));
}

}  // namespace

void silu(float* x, std::int64_t k) {
  map_ps(x, k, [](__m256 v) { return silu_of(v); });
}
void gelu_tanh(float* x, std::int64_t k) {
  map_ps(x, k, [](__m256 v) { return gelu_tanh_of(v); });
}
void gelu_erf(float* x, std::int64_t k) {
  map_ps(x, k, [](__m256 v) { return gelu_erf_of(v); });
}
void silu_mul(float* gate, const float* up, std::int64_t k) {
  map_mul_ps(gate, up, k, [](__m256 v) { return silu_of(v); });
}
void gelu_tanh_mul(float* gate, const float* up, std::int64_t k) {
  map_mul_ps(gate, up, k, [](__m256 v) { return gelu_tanh_of(v); });
}

}  // namespace narrow::kernels::avx2

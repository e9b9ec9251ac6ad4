// Pieces that the AVX-512 kernels share. Everything is static: this code must stay in its own translation
// units.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace narrow::kernels::avx512_vnni {

// The lanes of a tail of `left` < 16 values.
static inline __mmask16 tail_mask(std::int64_t left) { return static_cast<__mmask16>((1u << left) - 1u); }

// The sum of 64 lanes (generic/lanes.h), lane i in element i % 16 of s[i / 16].
static inline float sum_lanes(const __m512 (&s)[4]) {
  const __m512 v = _mm512_add_ps(_mm512_add_ps(s[0], s[2]), _mm512_add_ps(s[1], s[3]));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Sums up k elements in lanes. add(i, s) gives s with the elements i .. i + 15 added; add_some(i, mask, s)
// adds those of the mask, i being the first.
template <class Add, class AddSome>
static inline float sum_row(std::int64_t k, Add add, AddSome add_some) {
  __m512 s[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  std::int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; j < 4; ++j) s[j] = add(i + 16 * j, s[j]);
  }
  for (int j = 0; j < 4; ++j, i += 16) {
    if (i + 16 <= k) {
      s[j] = add(i, s[j]);
    } else if (i < k) {
      s[j] = add_some(i, tail_mask(k - i), s[j]);
    }
  }
  return sum_lanes(s);
}

// generic/exp.h, bit for bit.
static inline __m512 exp_ps(__m512 x) {
  const __mmask16 large_enough = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
  x = _mm512_min_ps(_mm512_set1_ps(88.3f), x);  // in this order NaN stays
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_maskz_scalef_ps(large_enough, p, n);
}

// In place over k values.
template <class F>
static inline void map_ps(float* x, std::int64_t k, F f) {
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) _mm512_storeu_ps(x + i, f(_mm512_loadu_ps(x + i)));
  if (i == k) return;
  const __mmask16 mask = tail_mask(k - i);
  _mm512_mask_storeu_ps(x + i, mask, f(_mm512_maskz_loadu_ps(mask, x + i)));
}

}  // namespace narrow::kernels::avx512_vnni

// Pieces that the AVX-512 kernels share. Everything is static: this code must stay in its own translation
// units.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace narrow::kernels::avx512_vnni {

// The lanes of a tail of `left` < 16 values.
static inline __mmask16 tail_mask(std::int64_t left) { return static_cast<__mmask16>((1u << left) - 1u); }

// e^x to about 1e-7 relative, as in avx2/vector.h; here the hardware scales by 2^n, down to 0.
static inline __m512 exp_ps(__m512 x) {
  x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.7f)), _mm512_set1_ps(-110.0f));
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
  return _mm512_scalef_ps(p, n);
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

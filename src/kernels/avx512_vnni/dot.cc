#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"

namespace narrow::kernels::avx512_vnni {

float dot_f32(const float* x, const float* y, std::int64_t k) {
  return sum_row(
      k,
      [=](std::int64_t i, __m512 s) {
        return _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i), s);
      },
      [=](std::int64_t i, __mmask16 mask, __m512 s) {
        return _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i),
                                     s, mask);
      });
}

void axpy_f32(float a, const float* x, float* y, std::int64_t k) {
  const __m512 va = _mm512_set1_ps(a);
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    _mm512_storeu_ps(y + i, _mm512_fmadd_ps(va, _mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i)));
  }
  if (i == k) return;
  const __mmask16 mask = tail_mask(k - i);
  _mm512_mask_storeu_ps(
      y + i, mask,
      _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i)));
}

void add_f32(const float* x, float* y, std::int64_t k) {
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(y + i), _mm512_loadu_ps(x + i)));
  }
  if (i == k) return;
  const __mmask16 mask = tail_mask(k - i);
  _mm512_mask_storeu_ps(
      y + i, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y + i), _mm512_maskz_loadu_ps(mask, x + i)));
}

void mul_f32(const float* x, float* y, std::int64_t k) {
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_loadu_ps(y + i), _mm512_loadu_ps(x + i)));
  }
  if (i == k) return;
  const __mmask16 mask = tail_mask(k - i);
  _mm512_mask_storeu_ps(
      y + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, y + i), _mm512_maskz_loadu_ps(mask, x + i)));
}

}  // namespace narrow::kernels::avx512_vnni

#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"

namespace narrow::kernels::avx512_vnni {

void rms_norm(const float* x, const float* gain, float eps, float* y, std::int64_t k) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const __m512 scale = _mm512_set1_ps(1.0f / __builtin_sqrtf(mean + eps));
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    _mm512_storeu_ps(y + i,
                     _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), scale), _mm512_loadu_ps(gain + i)));
  }
  if (i == k) return;
  const __mmask16 mask = tail_mask(k - i);
  _mm512_mask_storeu_ps(y + i, mask,
                        _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale),
                                      _mm512_maskz_loadu_ps(mask, gain + i)));
}

void layer_norm(const float* x, const float* gain, const float* bias, float eps, float* y, std::int64_t k) {
  const std::int64_t whole = k / 16 * 16;
  const __mmask16 rest = tail_mask(k - whole);
  const float sum = sum_row(
      k, [x](std::int64_t i, __m512 s) { return _mm512_add_ps(s, _mm512_loadu_ps(x + i)); },
      [x](std::int64_t i, __mmask16 mask, __m512 s) {
        return _mm512_mask_add_ps(s, mask, s, _mm512_maskz_loadu_ps(mask, x + i));
      });
  const __m512 mean = _mm512_set1_ps(sum / static_cast<float>(k));
  const float squares = sum_row(
      k,
      [=](std::int64_t i, __m512 s) {
        const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        return _mm512_fmadd_ps(d, d, s);
      },
      [=](std::int64_t i, __mmask16 mask, __m512 s) {
        const __m512 d = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean);
        return _mm512_mask3_fmadd_ps(d, d, s, mask);
      });
  const float variance = squares / static_cast<float>(k);
  const __m512 scale = _mm512_set1_ps(1.0f / __builtin_sqrtf(variance + eps));
  for (std::int64_t i = 0; i < k; i += 16) {
    const __mmask16 mask = i < whole ? static_cast<__mmask16>(0xffff) : rest;
    const __m512 d = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean);
    __m512 v = _mm512_mul_ps(_mm512_mul_ps(d, scale), _mm512_maskz_loadu_ps(mask, gain + i));
    if (bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + i));
    _mm512_mask_storeu_ps(y + i, mask, v);
  }
}

}  // namespace narrow::kernels::avx512_vnni

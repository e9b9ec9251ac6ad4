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

}  // namespace narrow::kernels::avx512_vnni

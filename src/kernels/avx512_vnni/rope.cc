// The operations of generic/, in its order: results are equal bit for bit.
#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"

namespace narrow::kernels::avx512_vnni {

void rope_half(float* x, const float* cos, const float* sin, std::int64_t dims) {
  const std::int64_t half = dims / 2;
  for (std::int64_t i = 0; i < half; i += 16) {
    const __mmask16 mask = half - i >= 16 ? static_cast<__mmask16>(0xffff) : tail_mask(half - i);
    const __m512 a = _mm512_maskz_loadu_ps(mask, x + i), b = _mm512_maskz_loadu_ps(mask, x + i + half);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), s = _mm512_maskz_loadu_ps(mask, sin + i);
    _mm512_mask_storeu_ps(x + i, mask, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
    _mm512_mask_storeu_ps(x + i + half, mask, _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
  }
}

void rope_interleaved(float* x, const float* cos, const float* sin, std::int64_t dims) {
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const std::int64_t pairs = dims / 2;
  for (std::int64_t i = 0; i < pairs; i += 8) {
    const std::int64_t left = pairs - i < 8 ? pairs - i : 8;
    const __mmask16 pair_mask = tail_mask(left), mask = static_cast<__mmask16>((1u << (2 * left)) - 1u);
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i);
    const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(pair_mask, cos + i));
    const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(pair_mask, sin + i));
    const __m512 straight = _mm512_mul_ps(v, c), crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
    const __m512 turned = _mm512_mask_sub_ps(_mm512_add_ps(straight, crossed), static_cast<__mmask16>(0x5555),
                                             straight, crossed);
    _mm512_mask_storeu_ps(x + 2 * i, mask, turned);
  }
}

}  // namespace narrow::kernels::avx512_vnni

#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"

namespace narrow::kernels::avx512_vnni {

void softmax(float* x, std::int64_t k) {
  if (k == 0) return;
  const std::int64_t whole = k / 16 * 16;
  const __mmask16 mask = tail_mask(k - whole);
  __m512 vmax = _mm512_set1_ps(x[0]);
  for (std::int64_t i = 0; i < whole; i += 16) vmax = _mm512_max_ps(vmax, _mm512_loadu_ps(x + i));
  vmax = _mm512_mask_max_ps(vmax, mask, vmax, _mm512_maskz_loadu_ps(mask, x + whole));
  const __m512 shift = _mm512_set1_ps(_mm512_reduce_max_ps(vmax));

  const float sum = sum_row(
      k,
      [=](std::int64_t i, __m512 s) {
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), shift));
        _mm512_storeu_ps(x + i, e);
        return _mm512_add_ps(s, e);
      },
      [=](std::int64_t i, __mmask16 some, __m512 s) {
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), shift));
        _mm512_mask_storeu_ps(x + i, some, e);
        return _mm512_mask_add_ps(s, some, s, e);
      });

  const __m512 scale = _mm512_set1_ps(1.0f / sum);
  map_ps(x, k, [scale](__m512 v) { return _mm512_mul_ps(v, scale); });
}

void softcap(float* x, float cap, std::int64_t k) {
  // tanh(z) = 1 - 2 / (e^2z + 1)
  const __m512 vcap = _mm512_set1_ps(cap), one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
  const __m512 inverse = _mm512_set1_ps(2.0f / cap);
  map_ps(x, k, [=](__m512 v) {
    const __m512 e = exp_ps(_mm512_mul_ps(v, inverse));
    return _mm512_mul_ps(vcap, _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(e, one))));
  });
}

}  // namespace narrow::kernels::avx512_vnni

#include "kernels/avx2/kernels.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {

void softmax(float* x, std::int64_t k) {
  if (k == 0) return;
  __m256 vmax = _mm256_set1_ps(x[0]);
  std::int64_t i = 0;
  for (; i + 8 <= k; i += 8) vmax = _mm256_max_ps(vmax, _mm256_loadu_ps(x + i));
  float max = horizontal_max(vmax);
  for (; i < k; ++i) max = x[i] > max ? x[i] : max;

  const __m256 shift = _mm256_set1_ps(max);
  map_ps(x, k, [shift](__m256 v) { return exp_ps(_mm256_sub_ps(v, shift)); });

  const float sum = sum_row(
      k, [x](std::int64_t at, __m256 s) { return _mm256_add_ps(s, _mm256_loadu_ps(x + at)); },
      [x](std::int64_t at, float s) { return s + x[at]; });

  const __m256 scale = _mm256_set1_ps(1.0f / sum);
  map_ps(x, k, [scale](__m256 v) { return _mm256_mul_ps(v, scale); });
}

void softcap(float* x, float cap, std::int64_t k) {
  // tanh(z) = 1 - 2 / (e^2z + 1)
  const __m256 vcap = _mm256_set1_ps(cap), one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
  const __m256 inverse = _mm256_set1_ps(2.0f / cap);
  map_ps(x, k, [=](__m256 v) {
    const __m256 e = exp_ps(_mm256_mul_ps(v, inverse));
    return _mm256_mul_ps(vcap, _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(e, one))));
  });
}

}  // namespace narrow::kernels::avx2

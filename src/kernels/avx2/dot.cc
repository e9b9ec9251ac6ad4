#include "kernels/avx2/kernels.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {

float dot_f32(const float* x, const float* y, std::int64_t k) {
  return sum_row(
      k,
      [=](std::int64_t i, __m256 s) {
        return _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i), s);
      },
      [=](std::int64_t i, float s) { return __builtin_fmaf(x[i], y[i], s); });
}

void axpy_f32(float a, const float* x, float* y, std::int64_t k) {
  const __m256 va = _mm256_set1_ps(a);
  std::int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    _mm256_storeu_ps(y + i, _mm256_fmadd_ps(va, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  }
  for (; i < k; ++i) y[i] = __builtin_fmaf(a, x[i], y[i]);
}

}  // namespace narrow::kernels::avx2

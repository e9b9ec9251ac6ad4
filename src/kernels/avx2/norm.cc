#include "kernels/avx2/kernels.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {

void rms_norm(const float* x, const float* gain, float eps, float* y, std::int64_t k) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const float scale = 1.0f / __builtin_sqrtf(mean + eps);
  const __m256 vs = _mm256_set1_ps(scale);
  std::int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    _mm256_storeu_ps(y + i,
                     _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), vs), _mm256_loadu_ps(gain + i)));
  }
  for (; i < k; ++i) y[i] = x[i] * scale * gain[i];
}

}  // namespace narrow::kernels::avx2

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

void layer_norm(const float* x, const float* gain, const float* bias, float eps, float* y, std::int64_t k) {
  const std::int64_t whole = k / 8 * 8;
  const float sum = sum_row(
      k, [x](std::int64_t i, __m256 s) { return _mm256_add_ps(s, _mm256_loadu_ps(x + i)); },
      [x](std::int64_t i, float s) { return s + x[i]; });
  const float mean = sum / static_cast<float>(k);
  const __m256 vmean = _mm256_set1_ps(mean);
  const float squares = sum_row(
      k,
      [=](std::int64_t i, __m256 s) {
        const __m256 d = _mm256_sub_ps(_mm256_loadu_ps(x + i), vmean);
        return _mm256_fmadd_ps(d, d, s);
      },
      [=](std::int64_t i, float s) { return __builtin_fmaf(x[i] - mean, x[i] - mean, s); });
  const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(k) + eps);
  const __m256 vscale = _mm256_set1_ps(scale);
  for (std::int64_t i = 0; i < whole; i += 8) {
    const __m256 d = _mm256_sub_ps(_mm256_loadu_ps(x + i), vmean);
    __m256 v = _mm256_mul_ps(_mm256_mul_ps(d, vscale), _mm256_loadu_ps(gain + i));
    if (bias != nullptr) v = _mm256_add_ps(v, _mm256_loadu_ps(bias + i));
    _mm256_storeu_ps(y + i, v);
  }
  for (std::int64_t i = whole; i < k; ++i) {
    y[i] = (x[i] - mean) * scale * gain[i];
    if (bias != nullptr) y[i] += bias[i];
  }
}

}  // namespace narrow::kernels::avx2

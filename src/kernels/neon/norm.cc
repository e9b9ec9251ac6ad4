#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {

void rms_norm(const float* x, const float* gain, float eps, float* y, std::int64_t k) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const float scale = 1.0f / __builtin_sqrtf(mean + eps);
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) {
    vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), scale), vld1q_f32(gain + i)));
  }
  for (; i < k; ++i) y[i] = x[i] * scale * gain[i];
}

void layer_norm(const float* x, const float* gain, const float* bias, float eps, float* y, std::int64_t k) {
  const std::int64_t whole = k / 4 * 4;
  const float sum = sum_row(
      k, [x](std::int64_t i, float32x4_t s) { return vaddq_f32(s, vld1q_f32(x + i)); },
      [x](std::int64_t i, float s) { return s + x[i]; });
  const float mean = sum / static_cast<float>(k);
  const float32x4_t vmean = vdupq_n_f32(mean);
  const float squares = sum_row(
      k,
      [=](std::int64_t i, float32x4_t s) {
        const float32x4_t d = vsubq_f32(vld1q_f32(x + i), vmean);
        return vfmaq_f32(s, d, d);
      },
      [=](std::int64_t i, float s) { return __builtin_fmaf(x[i] - mean, x[i] - mean, s); });
  const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(k) + eps);
  for (std::int64_t i = 0; i < whole; i += 4) {
    const float32x4_t d = vsubq_f32(vld1q_f32(x + i), vmean);
    float32x4_t v = vmulq_f32(vmulq_n_f32(d, scale), vld1q_f32(gain + i));
    if (bias != nullptr) v = vaddq_f32(v, vld1q_f32(bias + i));
    vst1q_f32(y + i, v);
  }
  for (std::int64_t i = whole; i < k; ++i) {
    y[i] = (x[i] - mean) * scale * gain[i];
    if (bias != nullptr) y[i] += bias[i];
  }
}

}  // namespace narrow::kernels::neon

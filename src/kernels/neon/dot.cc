#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {

float dot_f32(const float* x, const float* y, std::int64_t k) {
  // Eight sums: two fused multiply-adds a cycle of latency four.
  float32x4_t s[8];
  for (float32x4_t& v : s) v = vdupq_n_f32(0.0f);
  std::int64_t i = 0;
  for (; i + 32 <= k; i += 32) {
    for (int j = 0; j < 8; ++j) s[j] = vfmaq_f32(s[j], vld1q_f32(x + i + 4 * j), vld1q_f32(y + i + 4 * j));
  }
  for (; i + 4 <= k; i += 4) s[0] = vfmaq_f32(s[0], vld1q_f32(x + i), vld1q_f32(y + i));
  for (int j = 0; j < 4; ++j) s[j] = vaddq_f32(s[j], s[j + 4]);
  float sum = vaddvq_f32(vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3])));
  for (; i < k; ++i) sum += x[i] * y[i];
  return sum;
}

void axpy_f32(float a, const float* x, float* y, std::int64_t k) {
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) vst1q_f32(y + i, vfmaq_n_f32(vld1q_f32(y + i), vld1q_f32(x + i), a));
  for (; i < k; ++i) y[i] += a * x[i];
}

}  // namespace narrow::kernels::neon

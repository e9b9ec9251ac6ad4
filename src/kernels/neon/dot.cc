#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {

float dot_f32(const float* x, const float* y, std::int64_t k) {
  return sum_row(
      k, [=](std::int64_t i, float32x4_t s) { return vfmaq_f32(s, vld1q_f32(x + i), vld1q_f32(y + i)); },
      [=](std::int64_t i, float s) { return __builtin_fmaf(x[i], y[i], s); });
}

void axpy_f32(float a, const float* x, float* y, std::int64_t k) {
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) vst1q_f32(y + i, vfmaq_n_f32(vld1q_f32(y + i), vld1q_f32(x + i), a));
  for (; i < k; ++i) y[i] = __builtin_fmaf(a, x[i], y[i]);
}

}  // namespace narrow::kernels::neon

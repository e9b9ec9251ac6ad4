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

}  // namespace narrow::kernels::neon

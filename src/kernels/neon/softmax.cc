#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {

void softmax(float* x, std::int64_t k) {
  if (k == 0) return;
  float32x4_t vmax = vdupq_n_f32(x[0]);
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) vmax = vmaxq_f32(vmax, vld1q_f32(x + i));
  float max = vmaxvq_f32(vmax);
  for (; i < k; ++i) max = x[i] > max ? x[i] : max;

  const float32x4_t shift = vdupq_n_f32(max);
  map_ps(x, k, [shift](float32x4_t v) { return exp_ps(vsubq_f32(v, shift)); });

  const float sum = sum_row(
      k, [x](std::int64_t at, float32x4_t s) { return vaddq_f32(s, vld1q_f32(x + at)); },
      [x](std::int64_t at, float s) { return s + x[at]; });

  const float scale = 1.0f / sum;
  map_ps(x, k, [scale](float32x4_t v) { return vmulq_n_f32(v, scale); });
}

void softcap(float* x, float cap, std::int64_t k) {
  // tanh(z) = 1 - 2 / (e^2z + 1)
  const float32x4_t one = vdupq_n_f32(1.0f), two = vdupq_n_f32(2.0f);
  const float inverse = 2.0f / cap;
  map_ps(x, k, [=](float32x4_t v) {
    const float32x4_t e = exp_ps(vmulq_n_f32(v, inverse));
    return vmulq_n_f32(vsubq_f32(one, vdivq_f32(two, vaddq_f32(e, one))), cap);
  });
}

}  // namespace narrow::kernels::neon

// The operations of generic/, in its order: results are equal bit for bit.
#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {

void rope_half(float* x, const float* cos, const float* sin, std::int64_t dims) {
  const std::int64_t half = dims / 2;
  std::int64_t i = 0;
  for (; i + 4 <= half; i += 4) {
    const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + half);
    const float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
    vst1q_f32(x + i, vsubq_f32(vmulq_f32(a, c), vmulq_f32(b, s)));
    vst1q_f32(x + i + half, vaddq_f32(vmulq_f32(b, c), vmulq_f32(a, s)));
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

void rope_interleaved(float* x, const float* cos, const float* sin, std::int64_t dims) {
  const std::int64_t pairs = dims / 2;
  std::int64_t i = 0;
  for (; i + 4 <= pairs; i += 4) {
    const float32x4x2_t v = vld2q_f32(x + 2 * i);
    const float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
    float32x4x2_t turned;
    turned.val[0] = vsubq_f32(vmulq_f32(v.val[0], c), vmulq_f32(v.val[1], s));
    turned.val[1] = vaddq_f32(vmulq_f32(v.val[1], c), vmulq_f32(v.val[0], s));
    vst2q_f32(x + 2 * i, turned);
  }
  for (; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace narrow::kernels::neon

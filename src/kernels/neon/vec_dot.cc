#include "kernels/neon/vec_dot.h"

#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {
namespace {

// widen turns four 16-bit patterns into fp32.
template <class Widen>
inline float dot_16_bit(const std::byte* w, const float* x, std::int64_t k, Widen widen) {
  float32x4_t s[4];
  for (float32x4_t& v : s) v = vdupq_n_f32(0.0f);
  std::int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    for (int j = 0; j < 2; ++j) {
      const std::int64_t at = i + 8 * j;
      const uint16x8_t bits =
          vreinterpretq_u16_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(w + 2 * at)));
      s[2 * j] = vfmaq_f32(s[2 * j], widen(vget_low_u16(bits)), vld1q_f32(x + at));
      s[2 * j + 1] = vfmaq_f32(s[2 * j + 1], widen(vget_high_u16(bits)), vld1q_f32(x + at + 4));
    }
  }
  float sum = vaddvq_f32(vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3])));
  for (; i < k; ++i) {
    std::uint16_t bits;
    __builtin_memcpy(&bits, w + 2 * i, sizeof(bits));
    sum += vgetq_lane_f32(widen(vdup_n_u16(bits)), 0) * x[i];
  }
  return sum;
}

}  // namespace

float vec_dot_f16_f32(const std::byte* w, const float* x, std::int64_t k) {
  return dot_16_bit(w, x, k, [](uint16x4_t bits) { return vcvt_f32_f16(vreinterpret_f16_u16(bits)); });
}

float vec_dot_bf16_f32(const std::byte* w, const float* x, std::int64_t k) {
  return dot_16_bit(w, x, k, [](uint16x4_t bits) { return vreinterpretq_f32_u32(vshll_n_u16(bits, 16)); });
}

}  // namespace narrow::kernels::neon

#include "kernels/neon/vec_dot.h"

#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {
namespace {

// widen turns four 16-bit patterns into fp32.
template <class Widen>
inline float dot_16_bit(const std::byte* w, const float* x, std::int64_t k, Widen widen) {
  return sum_row(
      k,
      [=](std::int64_t i, float32x4_t s) {
        const uint8x8_t bytes = vld1_u8(reinterpret_cast<const std::uint8_t*>(w + 2 * i));
        return vfmaq_f32(s, widen(vreinterpret_u16_u8(bytes)), vld1q_f32(x + i));
      },
      [=](std::int64_t i, float s) {
        std::uint16_t bits;
        __builtin_memcpy(&bits, w + 2 * i, sizeof(bits));
        return __builtin_fmaf(vgetq_lane_f32(widen(vdup_n_u16(bits)), 0), x[i], s);
      });
}

}  // namespace

float vec_dot_f16_f32(const std::byte* w, const float* x, std::int64_t k) {
  return dot_16_bit(w, x, k, [](uint16x4_t bits) { return vcvt_f32_f16(vreinterpret_f16_u16(bits)); });
}

float vec_dot_bf16_f32(const std::byte* w, const float* x, std::int64_t k) {
  return dot_16_bit(w, x, k, [](uint16x4_t bits) { return vreinterpretq_f32_u32(vshll_n_u16(bits, 16)); });
}

}  // namespace narrow::kernels::neon

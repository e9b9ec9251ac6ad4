#include "kernels/neon/attention.h"

#include "kernels/attention/flash.h"
#include "kernels/neon/vector.h"

namespace narrow::kernels::neon {
namespace {

// A panel is four vectors: a tile of attention/tile.h takes 6 x 4 sums, 4 + 1 operands, 29 of 32 registers.
struct Vector {
  using F = float32x4_t;
  static constexpr int kWidth = 4;
  static constexpr int kMaxPanels = 1;

  static F zero() { return vdupq_n_f32(0.0f); }
  static F set1(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F max(F a, F b) { return vmaxq_f32(a, b); }
  static F min(F a, F b) { return vminq_f32(a, b); }
  // 2^x as in avx2/attention.cc: for x <= 60 to about 1e-7 relative, 0 below 2^-126.
  static F exp2(F x) {
    const uint32x4_t in = vcgeq_f32(x, set1(-126.0f));
    x = max(x, set1(-126.0f));
    const F n = round(x), r = sub(x, n);
    F p = fma(set1(1.535336188319500e-4f), r, set1(1.339887440266574e-3f));
    p = fma(p, r, set1(9.618437357674640e-3f));
    p = fma(p, r, set1(5.550332471162809e-2f));
    p = fma(p, r, set1(2.402264791363012e-1f));
    p = fma(p, r, set1(6.931472028550421e-1f));
    p = fma(p, r, set1(1.0f));
    const int32x4_t exponent = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    const int32x4_t scaled = vaddq_s32(vreinterpretq_s32_f32(p), exponent);
    return vreinterpretq_f32_u32(vandq_u32(in, vreinterpretq_u32_s32(scaled)));
  }
  static F round(F x) { return vrndnq_f32(x); }
  static float reduce_max(F x) { return vmaxvq_f32(x); }
  // Lanes outside [begin, end) become -infinity.
  static F keep(F x, std::int64_t begin, std::int64_t end) {
    static constexpr std::int32_t kLanes[4] = {0, 1, 2, 3};
    const int32x4_t lane = vld1q_s32(kLanes);
    const uint32x4_t in = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(static_cast<std::int32_t>(begin))),
                                    vcltq_s32(lane, vdupq_n_s32(static_cast<std::int32_t>(end))));
    return vbslq_f32(in, x, vdupq_n_f32(-std::numeric_limits<float>::infinity()));
  }

  static F load_f16(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static void store_f16(std::uint16_t* p, F x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
  static F set1_f16(const std::byte* p) {
    std::uint16_t h;
    __builtin_memcpy(&h, p, sizeof(h));
    return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h)));
  }
  static uint16x4_t load_4(const std::byte* p) {
    std::uint32_t word;
    __builtin_memcpy(&word, p, sizeof(word));
    return vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word))));
  }
  static F load_i8(const std::byte* p) {
    const int32x4_t wide = vshlq_n_s32(vreinterpretq_s32_u32(vmovl_u16(load_4(p))), 24);
    return vcvtq_f32_s32(vshrq_n_s32(wide, 24));
  }
  // Codes in bits shift .. shift + 3 (shift 0 or 4) of 4 bytes, minus 8.
  static F load_nibbles(const std::byte* p, int shift) {
    const uint16x4_t bytes = load_4(p);
    const uint16x4_t codes = vand_u16(shift != 0 ? vshr_n_u16(bytes, 4) : bytes, vdup_n_u16(15));
    return vcvtq_f32_s32(vsubl_s16(vreinterpret_s16_u16(codes), vdup_n_s16(8)));
  }
};

}  // namespace

constinit const AttentionKernels kAttention = {attention::store<Vector>, attention::attend<Vector>};

}  // namespace narrow::kernels::neon

// Vectors of 4 features for packed/weights.h and packed/multiply.h. Owner is a class in the namespace of the
// instruction set whose files instantiate this, so that its instances stay apart from others'.
//
// Tiles. 32 registers: a group of a tile holds 8 code vectors, up to two S and two -M and the sums y, and
// four integer sums run side by side, each fed from a register with 16 activations: 8 tokens take 8 + 4 + 8 +
// 4 + 4 = 28. Per token and group there are 8 products, and conversion, multiply and fma after them, on the
// same two (Cortex-A76, Neoverse N1) or four (V1) ports: 73 % of the peak at best. The products read their
// activations from a lane, so nothing is broadcast.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packed/unroll.h"

namespace narrow::kernels::neon {

template <class Owner>
struct PackedVectorOf {
  static constexpr int kLanes = 4;
  static constexpr bool kUnsignedCodes = false;
  static constexpr int kTilePanels = 1, kTileTokens = 8, kFusedTokens = 8;
  static constexpr std::int64_t kBlockBytes = 24 << 10;
  // The dot product is the same for all levels.
  static constexpr int level_class(int /*max_level*/) { return 127; }

  using Bytes = uint8x16_t;
  using Ints = int32x4_t;
  using Floats = float32x4_t;

  static inline Bytes load(const void* p) { return vld1q_u8(static_cast<const std::uint8_t*>(p)); }
  static inline void store(void* p, Bytes b) { vst1q_u8(static_cast<std::uint8_t*>(p), b); }
  template <int kBits>
  static inline Bytes shift(Bytes b) {
    if constexpr (kBits > 0) return vreinterpretq_u8_u32(vshrq_n_u32(vreinterpretq_u32_u8(b), kBits));
    if constexpr (kBits < 0) return vreinterpretq_u8_u32(vshlq_n_u32(vreinterpretq_u32_u8(b), -kBits));
    return b;
  }
  static inline Bytes mask(Bytes b, int m) { return vandq_u8(b, vdupq_n_u8(static_cast<std::uint8_t>(m))); }
  static inline Bytes merge(Bytes a, Bytes b, int m) { return vorrq_u8(a, mask(b, m)); }
  static inline Bytes load_table(const void* p) { return load(p); }
  static inline Bytes lookup(Bytes table, Bytes b) { return vqtbl1q_u8(table, b); }
  static inline Bytes subtract(Bytes b, int v) {
    return vsubq_u8(b, vdupq_n_u8(static_cast<std::uint8_t>(v)));
  }
  static inline Bytes spread_crumbs(const void* p) {
    const uint8x8_t both = vld1_u8(static_cast<const std::uint8_t*>(p));
    return vcombine_u8(both, vreinterpret_u8_u32(vshr_n_u32(vreinterpret_u32_u8(both), 2)));
  }

  static inline uint8x8_t load_4(const void* p) {
    std::uint32_t word;
    __builtin_memcpy(&word, p, sizeof(word));
    return vreinterpret_u8_u32(vdup_n_u32(word));
  }
  static inline Floats load_f16(const void* p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const std::uint8_t*>(p))));
  }
  static inline uint32x4_t widen_u8(const void* p) { return vmovl_u16(vget_low_u16(vmovl_u8(load_4(p)))); }
  static inline Floats load_u8(const void* p) { return vcvtq_f32_u32(widen_u8(p)); }
  static inline Floats load_i8(const void* p) {
    const int16x4_t wide = vget_low_s16(vmovl_s8(vreinterpret_s8_u8(load_4(p))));
    return vcvtq_f32_s32(vmovl_s16(wide));
  }
  static inline Floats half_exponents(const void* p) {
    const uint32x4_t e = widen_u8(p);
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t subnormal = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), subnormal, normal));
  }

  static inline Floats load_floats(const float* p) { return vld1q_f32(p); }
  static inline void store_floats(float* p, Floats f) { vst1q_f32(p, f); }
  static inline Floats load_first(const float* p, int n) {
    if (n == 4) return vld1q_f32(p);
    float lanes[4] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
  static inline void store_first(float* p, Floats f, int n) {
    if (n == 4) return vst1q_f32(p, f);
    float lanes[4];
    vst1q_f32(lanes, f);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  static inline Floats broadcast(float f) { return vdupq_n_f32(f); }
  static inline Ints broadcast(std::int32_t i) { return vdupq_n_s32(i); }
  static inline Floats zero() { return vdupq_n_f32(0.0f); }
  static inline Floats mul(Floats a, Floats b) { return vmulq_f32(a, b); }
  static inline Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  static inline Floats negate(Floats a) { return vnegq_f32(a); }
  static inline Floats to_float(Ints i) { return vcvtq_f32_s32(i); }

  static inline int8x16_t signed_bytes(Bytes b) { return vreinterpretq_s8_u8(b); }

  template <int kMaxLevel, int kFirst, int kVectors, int kPanels, int kSide, class Codes>
  [[gnu::always_inline]] static inline void dots(const Codes& w, const std::int8_t* q, Ints* sums) {
    Ints odd = vdupq_n_s32(0);
    packed::unroll<kVectors / 4>([&](auto part) NARROW_INLINE_LAMBDA {
      constexpr int kFour = 4 * decltype(part)::value;
      int8x16_t a[kSide];
      packed::unroll<kSide>(
          [&](auto b) NARROW_INLINE_LAMBDA { a[b.value] = vld1q_s8(q + 32 * b.value + 4 * kFour); });
      packed::unroll<4>([&](auto c) NARROW_INLINE_LAMBDA {
        constexpr int kLane = decltype(c)::value;
        packed::unroll<kPanels>([&](auto p) NARROW_INLINE_LAMBDA {
          constexpr int kPanel = decltype(p)::value;
          const int8x16_t codes = signed_bytes(w.template get<kPanel, kFirst + kFour + kLane>());
          packed::unroll<kSide>([&](auto b) NARROW_INLINE_LAMBDA {
            // One chain alone would wait for itself.
            constexpr bool kOdd = kPanels * kSide == 1 && kLane % 2 == 1;
            Ints& sum = kOdd ? odd : sums[kPanel * kSide + b.value];
            sum = vdotq_laneq_s32(sum, codes, a[b.value], kLane);
          });
        });
      });
    });
    if constexpr (kPanels * kSide == 1) sums[0] = vaddq_s32(sums[0], odd);
  }
};

struct Neon;
using PackedVector = PackedVectorOf<Neon>;

}  // namespace narrow::kernels::neon

// The vectors of neon/packed_vector.h with matrix products: smmla multiplies two features by two tokens over
// eight elements, twice the products of sdot.
#pragma once

#include "kernels/neon/packed_vector.h"

namespace narrow::kernels::neon_i8mm {

struct I8mm;

struct PackedVector : neon::PackedVectorOf<I8mm> {
  using Base = neon::PackedVectorOf<I8mm>;

  // The pairs of features are the same for all tokens of a group, so the compiler makes them once. Tokens are
  // paired anew for each panel of 4 features: 2 of 6 instructions.
  template <int kMaxLevel, int kFirst, int kVectors, int kPanels, int kSide, class Codes>
  [[gnu::always_inline]] static inline void dots(const Codes& w, const std::int8_t* q, Ints* sums) {
    if constexpr (kSide == 1) {
      Base::template dots<kMaxLevel, kFirst, kVectors, kPanels, kSide>(w, q, sums);
    } else {
      static_assert(kSide % 2 == 0);
      constexpr int kPairs = kSide / 2;
      // low: features 0 and 1, each times two tokens; high: features 2 and 3.
      Ints low[kPanels * kPairs], high[kPanels * kPairs];
      packed::unroll<kPanels * kPairs>([&](auto i) NARROW_INLINE_LAMBDA {
        low[i.value] = vdupq_n_s32(0);
        high[i.value] = vdupq_n_s32(0);
      });
      packed::unroll<kVectors / 4>([&](auto part) NARROW_INLINE_LAMBDA {
        constexpr int kFour = 4 * decltype(part)::value, kCode = kFirst + kFour;
        packed::unroll<kPairs>([&](auto pair) NARROW_INLINE_LAMBDA {
          const std::int8_t* tokens = q + 64 * pair.value + 4 * kFour;
          const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(tokens));
          const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(tokens + 32));
          const int64x2_t first = vzip1q_s64(a, b), second = vzip2q_s64(a, b);
          packed::unroll<kPanels>([&](auto p) NARROW_INLINE_LAMBDA {
            constexpr int kPanel = decltype(p)::value;
            const int at = kPanel * kPairs + pair.value;
            multiply(w.template get<kPanel, kCode>(), w.template get<kPanel, kCode + 1>(), first, low[at],
                     high[at]);
            multiply(w.template get<kPanel, kCode + 2>(), w.template get<kPanel, kCode + 3>(), second,
                     low[at], high[at]);
          });
        });
      });
      packed::unroll<kPanels * kPairs>([&](auto i) NARROW_INLINE_LAMBDA {
        constexpr int kAt = decltype(i)::value;
        sums[2 * kAt] = vaddq_s32(sums[2 * kAt], vuzp1q_s32(low[kAt], high[kAt]));
        sums[2 * kAt + 1] = vaddq_s32(sums[2 * kAt + 1], vuzp2q_s32(low[kAt], high[kAt]));
      });
    }
  }

 private:
  // Elements 0..3 and 4..7 of four features times elements 0..7 of two tokens.
  [[gnu::always_inline]] static inline void multiply(Bytes first, Bytes second, int64x2_t tokens, Ints& low,
                                                     Ints& high) {
    const int32x4_t a = vreinterpretq_s32_u8(first), b = vreinterpretq_s32_u8(second);
    const int8x16_t t = vreinterpretq_s8_s64(tokens);
    low = vmmlaq_s32(low, vreinterpretq_s8_s32(vzip1q_s32(a, b)), t);
    high = vmmlaq_s32(high, vreinterpretq_s8_s32(vzip2q_s32(a, b)), t);
  }
};

}  // namespace narrow::kernels::neon_i8mm

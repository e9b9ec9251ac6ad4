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
  template <int kMaxLevel, int kVectors, int kSide>
  [[gnu::always_inline]] static inline void dots(const Bytes* w, const std::int8_t* q, Ints* sums) {
    if constexpr (kSide == 1) {
      Base::template dots<kMaxLevel, kVectors, kSide>(w, q, sums);
    } else {
      static_assert(kSide % 2 == 0);
      // low: features 0 and 1, each times two tokens; high: features 2 and 3.
      Ints low[kSide / 2], high[kSide / 2];
      packed::unroll<kSide / 2>([&](auto pair) NARROW_INLINE_LAMBDA {
        low[pair.value] = vdupq_n_s32(0);
        high[pair.value] = vdupq_n_s32(0);
      });
      packed::unroll<kVectors / 4>([&](auto part) NARROW_INLINE_LAMBDA {
        constexpr int kFirst = 4 * decltype(part)::value;
        packed::unroll<kSide / 2>([&](auto pair) NARROW_INLINE_LAMBDA {
          const std::int8_t* tokens = q + 64 * pair.value + 4 * kFirst;
          const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(tokens));
          const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(tokens + 32));
          multiply(w[kFirst], w[kFirst + 1], vzip1q_s64(a, b), low[pair.value], high[pair.value]);
          multiply(w[kFirst + 2], w[kFirst + 3], vzip2q_s64(a, b), low[pair.value], high[pair.value]);
        });
      });
      packed::unroll<kSide / 2>([&](auto pair) NARROW_INLINE_LAMBDA {
        constexpr int kToken = 2 * decltype(pair)::value;
        sums[kToken] = vaddq_s32(sums[kToken], vuzp1q_s32(low[pair.value], high[pair.value]));
        sums[kToken + 1] = vaddq_s32(sums[kToken + 1], vuzp2q_s32(low[pair.value], high[pair.value]));
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

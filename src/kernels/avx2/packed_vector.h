// Vectors of 8 features for packed/weights.h and packed/multiply.h.
//
// Without VNNI, vpmaddubsw adds two products of an unsigned and a signed byte in 16 bits. Levels below 16
// leave room for 8 such sums in 16 bits (8 * 2 * 15 * 127 = 30480), below 32 for 4, below 64 for 2, before
// vpmaddwd widens them: nothing ever saturates. 8-bit codes are signed here, and their sign moves to the
// activation: |w| * (x with the sign of w) is at most 2 * 128 * 127 = 32512 per pair.
//
// Tiles. 16 registers: y of 4 tokens, the 4 sums beside each other and half of the code vectors at a time;
// the other half comes from L1.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packed/unroll.h"

namespace narrow::kernels::avx2 {

struct PackedVector {
  static constexpr int kLanes = 8;
  static constexpr bool kUnsignedCodes = false;
  static constexpr int kTilePanels = 1, kTileTokens = 4, kFusedTokens = 4;
  static constexpr std::int64_t kBlockBytes = 20 << 10;
  static constexpr int level_class(int max_level) {
    return max_level <= 15 ? 15 : max_level <= 31 ? 31 : max_level <= 63 ? 63 : 255;
  }

  using Bytes = __m256i;
  using Ints = __m256i;
  using Floats = __m256;

  static inline Bytes load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static inline void store(void* p, Bytes b) { _mm256_storeu_si256(static_cast<__m256i*>(p), b); }
  template <int kBits>
  static inline Bytes shift(Bytes b) {
    if constexpr (kBits > 0) return _mm256_srli_epi32(b, kBits);
    if constexpr (kBits < 0) return _mm256_slli_epi32(b, -kBits);
    return b;
  }
  static inline Bytes mask(Bytes b, int m) {
    return _mm256_and_si256(b, _mm256_set1_epi8(static_cast<char>(m)));
  }
  static inline Bytes merge(Bytes a, Bytes b, int m) { return _mm256_or_si256(a, mask(b, m)); }
  static inline Bytes load_table(const void* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static inline Bytes lookup(Bytes table, Bytes b) { return _mm256_shuffle_epi8(table, b); }
  static inline Bytes subtract(Bytes b, int v) {
    return _mm256_sub_epi8(b, _mm256_set1_epi8(static_cast<char>(v)));
  }
  static inline Bytes spread_crumbs(const void* p) {
    return _mm256_srlv_epi32(load_table(p), _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2));
  }

  static inline __m128i load_8(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
  static inline Floats load_f16(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static inline Floats load_u8(const void* p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8(p))); }
  static inline Floats load_i8(const void* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8(p))); }
  static inline Floats half_exponents(const void* p) {
    const __m256i e = _mm256_cvtepu8_epi32(load_8(p));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(
        _mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
  }

  static inline Floats load_floats(const float* p) { return _mm256_loadu_ps(p); }
  static inline void store_floats(float* p, Floats f) { _mm256_storeu_ps(p, f); }
  static inline __m256i first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static inline Floats load_first(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
  static inline void store_first(float* p, Floats f, int n) { _mm256_maskstore_ps(p, first_lanes(n), f); }
  static inline Floats broadcast(float f) { return _mm256_set1_ps(f); }
  static inline Ints broadcast(std::int32_t i) { return _mm256_set1_epi32(i); }
  static inline Floats zero() { return _mm256_setzero_ps(); }
  static inline Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static inline Floats negate(Floats a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
  static inline Floats to_float(Ints i) { return _mm256_cvtepi32_ps(i); }

  static inline Bytes broadcast_4(const std::int8_t* q) {
    std::int32_t word;
    __builtin_memcpy(&word, q, 4);
    return _mm256_set1_epi32(word);
  }
  // Four products per lane as two sums of 16 bits.
  template <int kMaxLevel>
  static inline __m256i pairs(Bytes w, Bytes q) {
    if constexpr (kMaxLevel > 127) {
      return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    } else {
      return _mm256_maddubs_epi16(w, q);
    }
  }
  template <int kMaxLevel, int kFirst, int kVectors, int kPanels, int kSide, class Codes>
  [[gnu::always_inline]] static inline void dots(const Codes& w, const std::int8_t* q, Ints* sums) {
    static_assert(kPanels == 1);
    constexpr int kRoom = kMaxLevel > 127 ? 1 : 32767 / (2 * 127 * kMaxLevel);  // sums of pairs in 16 bits
    constexpr int kPower = kRoom >= 8 ? 8 : kRoom >= 4 ? 4 : kRoom >= 2 ? 2 : 1;
    constexpr int kStep = kPower < kVectors ? kPower : kVectors;
    packed::unroll<kVectors / kStep>([&](auto part) NARROW_INLINE_LAMBDA {
      packed::unroll<kSide>([&](auto b) NARROW_INLINE_LAMBDA {
        __m256i sum = _mm256_setzero_si256();
        packed::unroll<kStep>([&](auto c) NARROW_INLINE_LAMBDA {
          constexpr int kVector = decltype(part)::value * kStep + decltype(c)::value;
          const __m256i two = pairs<kMaxLevel>(w.template get<0, kFirst + kVector>(),
                                               broadcast_4(q + 32 * b.value + 4 * kVector));
          sum = c.value == 0 ? two : _mm256_add_epi16(sum, two);
        });
        sums[b.value] = _mm256_add_epi32(sums[b.value], _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
      });
    });
  }
};

}  // namespace narrow::kernels::avx2

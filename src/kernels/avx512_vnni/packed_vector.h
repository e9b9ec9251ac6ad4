// Vectors of 16 features for packed/weights.h and packed/multiply.h.
//
// Tiles. Per token, group and panel there are 8 vpdpbusd, a conversion, a multiply and an fma for ports 0 and
// 5 of Sapphire Rapids: 8 of 11 slots, 73 % of the peak at best. Each dot product takes a broadcast of four
// activations, which is a load; two panels share it, so that loads (two per cycle) are not the limit too.
// 2 panels x 6 tokens: 12 sums y, 12 integer chains side by side (5 cycles of latency need 10), a code vector
// per panel, a broadcast, S and -M: 31 of 32 registers. Zen 4 splits 512 bits in two: the same ratio at half
// the rate. 24 KB of unpacked weights leave room for the tile in its 32 KB of L1.
// Fused, a group costs 8 to 40 more instructions to unpack, which the tokens share; beyond eight tokens
// unpacking to L1 is cheaper.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packed/unroll.h"

namespace narrow::kernels::avx512_vnni {

struct PackedVector {
  static constexpr int kLanes = 16;
  static constexpr bool kUnsignedCodes = true;
  static constexpr int kTilePanels = 2, kTileTokens = 6, kFusedTokens = 8;
  static constexpr std::int64_t kBlockBytes = 24 << 10;
  // The dot product is the same for all levels.
  static constexpr int level_class(int /*max_level*/) { return 255; }

  using Bytes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;

  static inline Bytes load(const void* p) { return _mm512_loadu_si512(p); }
  static inline void store(void* p, Bytes b) { _mm512_storeu_si512(p, b); }
  template <int kBits>
  static inline Bytes shift(Bytes b) {
    if constexpr (kBits > 0) return _mm512_srli_epi32(b, kBits);
    if constexpr (kBits < 0) return _mm512_slli_epi32(b, -kBits);
    return b;
  }
  static inline Bytes mask(Bytes b, int m) {
    return _mm512_and_si512(b, _mm512_set1_epi8(static_cast<char>(m)));
  }
  static inline Bytes merge(Bytes a, Bytes b, int m) {
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8(static_cast<char>(m)), 0xf8);  // a | (b & m)
  }
  static inline Bytes load_table(const void* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static inline Bytes lookup(Bytes table, Bytes b) { return _mm512_shuffle_epi8(table, b); }
  static inline Bytes subtract(Bytes b, int v) {
    return _mm512_sub_epi8(b, _mm512_set1_epi8(static_cast<char>(v)));
  }
  static inline Bytes spread_crumbs(const void* p) {
    const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return _mm512_mask_srli_epi32(both, 0xff00, both, 2);
  }

  static inline __m128i load_16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static inline Floats load_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static inline Floats load_u8(const void* p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_16(p))); }
  static inline Floats load_i8(const void* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16(p))); }
  static inline Floats half_exponents(const void* p) {
    const __m512i e = _mm512_cvtepu8_epi32(load_16(p));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), subnormal));
  }

  static inline Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static inline void store_floats(float* p, Floats f) { _mm512_storeu_ps(p, f); }
  static inline Floats load_first(const float* p, int n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
  }
  static inline void store_first(float* p, Floats f, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), f);
  }
  static inline Floats broadcast(float f) { return _mm512_set1_ps(f); }
  static inline Ints broadcast(std::int32_t i) { return _mm512_set1_epi32(i); }
  static inline Floats zero() { return _mm512_setzero_ps(); }
  static inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static inline Floats negate(Floats a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
  static inline Floats to_float(Ints i) { return _mm512_cvtepi32_ps(i); }

  static inline Ints broadcast_4(const std::int8_t* q) {
    std::int32_t word;
    __builtin_memcpy(&word, q, 4);
    return _mm512_set1_epi32(word);
  }
  template <int kMaxLevel, int kFirst, int kVectors, int kPanels, int kSide, class Codes>
  [[gnu::always_inline]] static inline void dots(const Codes& w, const std::int8_t* q, Ints* sums) {
    if constexpr (kPanels * kSide == 1) {
      // One chain alone would wait for itself.
      Ints odd = _mm512_setzero_si512();
      packed::unroll<kVectors / 2>([&](auto c) NARROW_INLINE_LAMBDA {
        constexpr int kEven = kFirst + 2 * decltype(c)::value;
        sums[0] = _mm512_dpbusd_epi32(sums[0], w.template get<0, kEven>(), broadcast_4(q + 8 * c.value));
        odd = _mm512_dpbusd_epi32(odd, w.template get<0, kEven + 1>(), broadcast_4(q + 8 * c.value + 4));
      });
      sums[0] = _mm512_add_epi32(sums[0], odd);
    } else {
      packed::unroll<kVectors>([&](auto c) NARROW_INLINE_LAMBDA {
        constexpr int kVector = kFirst + decltype(c)::value;
        packed::unroll<kSide>([&](auto b) NARROW_INLINE_LAMBDA {
          const __m512i four = broadcast_4(q + 32 * b.value + 4 * c.value);
          packed::unroll<kPanels>([&](auto p) NARROW_INLINE_LAMBDA {
            Ints& sum = sums[p.value * kSide + b.value];
            sum = _mm512_dpbusd_epi32(sum, w.template get<decltype(p)::value, kVector>(), four);
          });
        });
      });
    }
  }
};

}  // namespace narrow::kernels::avx512_vnni

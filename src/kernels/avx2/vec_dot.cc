#include "kernels/avx2/vec_dot.h"

#include "formats/codebook_fit.h"
#include "formats/iq4_nl.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/scales_6bit.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {
namespace {

using formats::kSuperBlock;

// In place: copying a block first would stall its loads behind the copy's stores.
template <class Block>
const Block& block_at(const std::byte* w, std::int64_t i) {
  static_assert(alignof(Block) <= 2);
  return reinterpret_cast<const Block*>(w)[i];
}

float from_f16(f16 h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h.bits))); }

__m256 floats_of_low_8(__m128i codes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)); }

// Lanes that add up to the sum of 16 signed 8-bit codes times x.
__m256 dot_16(__m128i codes, const float* x) {
  const __m256 low = _mm256_mul_ps(floats_of_low_8(codes), _mm256_loadu_ps(x));
  return _mm256_fmadd_ps(floats_of_low_8(_mm_srli_si128(codes, 8)), _mm256_loadu_ps(x + 8), low);
}

__m256 dot_32(__m256i codes, const float* x) {
  return _mm256_add_ps(dot_16(_mm256_castsi256_si128(codes), x),
                       dot_16(_mm256_extracti128_si256(codes, 1), x + 16));
}

// Lanes that add up to the sum of 32 values of x.
__m256 sum_32(const float* x) {
  return _mm256_add_ps(_mm256_add_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)),
                       _mm256_add_ps(_mm256_loadu_ps(x + 16), _mm256_loadu_ps(x + 24)));
}

__m256i load_32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
__m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
__m256i high_nibbles(__m256i v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }

// 16 bytes whose low nibbles are codes 0..15 and whose high nibbles are codes 16..31.
__m256i nibbles_of_16(const std::uint8_t* qs) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
  return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes));
}

// 16 in every byte j whose bit j of the word is set.
__m256i fifth_bits(const std::uint8_t (&qh)[4]) {
  std::uint32_t word;
  __builtin_memcpy(&word, qh, sizeof(word));
  // Byte j of the vector gets the word's byte j / 8, then keeps bit j % 8.
  const __m256i spread =
      _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)),
                          _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(16));
}

__m256 scaled(float scale, __m256 lanes, __m256 sum) {
  return _mm256_fmadd_ps(_mm256_set1_ps(scale), lanes, sum);
}

}  // namespace

float vec_dot_f16_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps(), sum2 = sum;
  std::int64_t i = 0;
  const auto load = [w](std::int64_t at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 2 * at)));
  };
  for (; i + 16 <= k; i += 16) {
    sum = _mm256_fmadd_ps(load(i), _mm256_loadu_ps(x + i), sum);
    sum2 = _mm256_fmadd_ps(load(i + 8), _mm256_loadu_ps(x + i + 8), sum2);
  }
  float total = horizontal_sum(_mm256_add_ps(sum, sum2));
  for (; i < k; ++i) total += from_f16(block_at<f16>(w, i)) * x[i];
  return total;
}

float vec_dot_bf16_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps(), sum2 = sum;
  std::int64_t i = 0;
  const auto load = [w](std::int64_t at) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 2 * at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  };
  for (; i + 16 <= k; i += 16) {
    sum = _mm256_fmadd_ps(load(i), _mm256_loadu_ps(x + i), sum);
    sum2 = _mm256_fmadd_ps(load(i + 8), _mm256_loadu_ps(x + i + 8), sum2);
  }
  float total = horizontal_sum(_mm256_add_ps(sum, sum2));
  for (; i < k; ++i) total += to_f32(block_at<bf16>(w, i)) * x[i];
  return total;
}

float vec_dot_q8_0_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps();
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto& b = block_at<formats::BlockQ8_0>(w, i);
    sum = scaled(from_f16(b.d), dot_32(load_32(b.qs), x + 32 * i), sum);
  }
  return horizontal_sum(sum);
}

float vec_dot_q4_0_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps();
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto& b = block_at<formats::BlockQ4_0>(w, i);
    const __m256i codes = _mm256_sub_epi8(nibbles_of_16(b.qs), _mm256_set1_epi8(8));
    sum = scaled(from_f16(b.d), dot_32(codes, x + 32 * i), sum);
  }
  return horizontal_sum(sum);
}

float vec_dot_q4_1_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps(), mins = sum;
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto& b = block_at<formats::BlockQ4_1>(w, i);
    sum = scaled(from_f16(b.d), dot_32(nibbles_of_16(b.qs), x + 32 * i), sum);
    mins = scaled(from_f16(b.m), sum_32(x + 32 * i), mins);
  }
  return horizontal_sum(_mm256_add_ps(sum, mins));
}

float vec_dot_q5_0_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps();
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto& b = block_at<formats::BlockQ5_0>(w, i);
    const __m256i codes = _mm256_or_si256(nibbles_of_16(b.qs), fifth_bits(b.qh));
    sum = scaled(from_f16(b.d), dot_32(_mm256_sub_epi8(codes, _mm256_set1_epi8(16)), x + 32 * i), sum);
  }
  return horizontal_sum(sum);
}

float vec_dot_q5_1_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps(), mins = sum;
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto& b = block_at<formats::BlockQ5_1>(w, i);
    const __m256i codes = _mm256_or_si256(nibbles_of_16(b.qs), fifth_bits(b.qh));
    sum = scaled(from_f16(b.d), dot_32(codes, x + 32 * i), sum);
    mins = scaled(from_f16(b.m), sum_32(x + 32 * i), mins);
  }
  return horizontal_sum(_mm256_add_ps(sum, mins));
}

float vec_dot_iq4_nl_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps();
  const __m256i levels = _mm256_broadcastsi128_si256(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(formats::kNonLinearLevels.data())));
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto& b = block_at<formats::BlockIQ4_NL>(w, i);
    const __m256i codes = _mm256_shuffle_epi8(levels, nibbles_of_16(b.qs));
    sum = scaled(from_f16(b.d), dot_32(codes, x + 32 * i), sum);
  }
  return horizontal_sum(sum);
}

float vec_dot_q4_k_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps(), mins = sum;
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, x += kSuperBlock) {
    const auto& b = block_at<formats::BlockQ4_K>(w, i);
    const float d = from_f16(b.d), dmin = from_f16(b.dmin);
    std::uint8_t sc[8], mn[8];
    formats::unpack_scales_6bit(b.scales, sc, mn);
    for (int c = 0; c < 4; ++c) {
      const __m256i bytes = load_32(b.qs + 32 * c);
      const float *low = x + 64 * c, *high = low + 32;
      sum = scaled(d * sc[2 * c], dot_32(low_nibbles(bytes), low), sum);
      sum = scaled(d * sc[2 * c + 1], dot_32(high_nibbles(bytes), high), sum);
      mins = scaled(dmin * mn[2 * c], sum_32(low), mins);
      mins = scaled(dmin * mn[2 * c + 1], sum_32(high), mins);
    }
  }
  return horizontal_sum(_mm256_sub_ps(sum, mins));
}

float vec_dot_q5_k_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps(), mins = sum;
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, x += kSuperBlock) {
    const auto& b = block_at<formats::BlockQ5_K>(w, i);
    const float d = from_f16(b.d), dmin = from_f16(b.dmin);
    std::uint8_t sc[8], mn[8];
    formats::unpack_scales_6bit(b.scales, sc, mn);
    const __m256i fifths = load_32(b.qh);
    for (int g = 0; g < 8; ++g) {
      const __m256i bytes = load_32(b.qs + 32 * (g / 2));
      const __m256i bit = _mm256_set1_epi8(static_cast<char>(1 << g));
      const __m256i fifth =
          _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(fifths, bit), bit), _mm256_set1_epi8(16));
      const __m256i codes = _mm256_or_si256(g % 2 == 0 ? low_nibbles(bytes) : high_nibbles(bytes), fifth);
      sum = scaled(d * sc[g], dot_32(codes, x + 32 * g), sum);
      mins = scaled(dmin * mn[g], sum_32(x + 32 * g), mins);
    }
  }
  return horizontal_sum(_mm256_sub_ps(sum, mins));
}

float vec_dot_q6_k_f32(const std::byte* w, const float* x, std::int64_t k) {
  __m256 sum = _mm256_setzero_ps();
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, x += kSuperBlock) {
    const auto& b = block_at<formats::BlockQ6_K>(w, i);
    const float d = from_f16(b.d);
    for (int h = 0; h < 2; ++h) {
      __m256i upper = load_32(b.qh + 32 * h);  // two bits a byte for each of four runs
      for (int s = 0; s < 4; ++s) {
        const __m256i bytes = load_32(b.ql + 64 * h + 32 * (s % 2));
        const __m256i low = s < 2 ? low_nibbles(bytes) : high_nibbles(bytes);
        const __m256i high = _mm256_slli_epi16(_mm256_and_si256(upper, _mm256_set1_epi8(3)), 4);
        const __m256i codes = _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
        upper = _mm256_srli_epi16(upper, 2);
        const float* run = x + 128 * h + 32 * s;
        const std::int8_t* sc = b.scales + 8 * h + 2 * s;
        sum = scaled(d * sc[0], dot_16(_mm256_castsi256_si128(codes), run), sum);
        sum = scaled(d * sc[1], dot_16(_mm256_extracti128_si256(codes, 1), run + 16), sum);
      }
    }
  }
  return horizontal_sum(sum);
}

}  // namespace narrow::kernels::avx2

// Four groups of 32 at a time: one division serves four scales, and reductions across lanes are shared.
#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/vector.h"
#include "kernels/generic/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

constexpr std::int64_t kBlock = 128;

// The largest of each of four vectors of non-negative integers.
static inline __m128i horizontal_max_4(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_max_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i abcd = _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_max_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64(abcd, 1));
  return _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// Codes of four vectors in the order of their elements as bytes, and (low half of `sums`) the sum of each.
static inline __m512i pack_codes(__m512i a, __m512i b, __m512i c, __m512i d, __m512i* quarter_sums) {
  // Each dword of `mixed` holds four neighbours: dword 4 L + v is lane L of vector v.
  const __m512i mixed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  *quarter_sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), mixed);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, mixed);
}

static inline __mmask64 low_bits(std::int64_t n) {
  return n >= 64 ? ~__mmask64{0} : n <= 0 ? __mmask64{0} : (__mmask64{1} << n) - 1;
}

// Quantizes v, 1 to 4 groups (the rest of v is zero). False, and nothing written: a value is not finite.
static inline bool quantize_block(const __m512 (&v)[8], std::int64_t groups, std::int8_t* q, float* scale,
                                  std::int32_t* sums) {
  // As integers, magnitudes sort like floats, with infinity and NaN above all others.
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest[4];
  for (int g = 0; g < 4; ++g) {
    largest[g] = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(v[2 * g]), magnitude),
                                  _mm512_and_si512(_mm512_castps_si512(v[2 * g + 1]), magnitude));
  }
  const __m128i bits = horizontal_max_4(largest[0], largest[1], largest[2], largest[3]);
  if (_mm_cmpgt_epi32_mask(bits, _mm_set1_epi32(0x7f7fffff)) != 0) return false;
  const __m128 absmax = _mm_castsi128_ps(bits), levels = _mm_set1_ps(127.0f);
  const __m128 inverse = _mm_div_ps(levels, absmax);
  // Infinite where absmax is 0 or nearly: scale and codes are then 0.
  const __mmask8 usable = _mm_cmp_ps_mask(inverse, _mm_set1_ps(__FLT_MAX__), _CMP_LE_OQ);
  const __m512 factors = _mm512_broadcast_f32x4(_mm_maskz_mov_ps(usable, inverse));
  const __m512 f[4] = {_mm512_permute_ps(factors, 0x00), _mm512_permute_ps(factors, 0x55),
                       _mm512_permute_ps(factors, 0xaa), _mm512_permute_ps(factors, 0xff)};
  __m512i code[8];
  for (int i = 0; i < 8; ++i) code[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], f[i / 2]));
  __m512i s0, s1;
  const __m512i q0 = pack_codes(code[0], code[1], code[2], code[3], &s0);
  const __m512i q1 = pack_codes(code[4], code[5], code[6], code[7], &s1);
  const __m512i s = _mm512_add_epi32(_mm512_shuffle_i32x4(s0, s1, 0x44), _mm512_shuffle_i32x4(s0, s1, 0xee));
  const __m256i run_sums = _mm512_castsi512_si256(
      _mm512_add_epi32(_mm512_shuffle_i32x4(s, s, 0x08), _mm512_shuffle_i32x4(s, s, 0x0d)));
  const __m128 scales = _mm_maskz_div_ps(usable, absmax, levels);
  if (groups == 4) {
    _mm512_storeu_si512(q, q0);
    _mm512_storeu_si512(q + 64, q1);
    _mm_storeu_ps(scale, scales);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), run_sums);
  } else {
    _mm512_mask_storeu_epi8(q, low_bits(groups * 32), q0);
    _mm512_mask_storeu_epi8(q + 64, low_bits(groups * 32 - 64), q1);
    _mm_mask_storeu_ps(scale, static_cast<__mmask8>(low_bits(groups)), scales);
    _mm256_mask_storeu_epi32(sums, static_cast<__mmask8>(low_bits(groups * 2)), run_sums);
  }
  return true;
}

// load(i, mask) gives the values i .. i + 15 of the row, zero outside the mask.
template <class Load>
static inline void quantize_loaded(Load load, std::int64_t k, std::int8_t* q, float* scale,
                                   std::int32_t* sums) {
  for (std::int64_t i = 0; i < k; i += kBlock) {
    const std::int64_t left = k - i;
    __m512 v[8];
    if (left >= kBlock) {
      for (int j = 0; j < 8; ++j) v[j] = load(i + 16 * j, static_cast<__mmask16>(0xffff));
    } else {
      for (int j = 0; j < 8; ++j) v[j] = load(i + 16 * j, static_cast<__mmask16>(16 * j < left ? 0xffff : 0));
    }
    const std::int64_t groups = left >= kBlock ? 4 : left / 32;
    if (quantize_block(v, groups, q + i, scale + i / 32, sums + i / 16)) continue;
    alignas(64) float values[kBlock];
    for (int j = 0; j < 8; ++j) _mm512_store_ps(values + 16 * j, v[j]);
    generic::quantize_row(values, groups * 32, q + i, scale + i / 32, sums + i / 16);
  }
}

}  // namespace

void quantize_row(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums) {
  quantize_loaded([x](std::int64_t i, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, x + i); }, k, q,
                  scale, sums);
}

void rms_norm_quantize(const float* x, const float* gain, float eps, std::int64_t k, std::int8_t* q,
                       float* scale, std::int32_t* sums) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const __m512 factor = _mm512_set1_ps(1.0f / __builtin_sqrtf(mean + eps));
  quantize_loaded(
      [=](std::int64_t i, __mmask16 mask) {
        return _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor),
                             _mm512_maskz_loadu_ps(mask, gain + i));
      },
      k, q, scale, sums);
}

}  // namespace narrow::kernels::avx512_vnni

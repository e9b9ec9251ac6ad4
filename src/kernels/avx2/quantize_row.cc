#include "kernels/avx2/kernels.h"
#include "kernels/avx2/vector.h"
#include "kernels/generic/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

static inline __m256i magnitude_bits(__m256 v) {
  return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}

// One group of 32. False, and nothing written: a value is not finite.
static inline bool quantize_group(const __m256 (&v)[4], std::int8_t* q, float* scale, std::int32_t* sums) {
  // As integers, magnitudes sort like floats, with infinity and NaN above all others.
  const __m256i largest = _mm256_max_epi32(_mm256_max_epi32(magnitude_bits(v[0]), magnitude_bits(v[1])),
                                           _mm256_max_epi32(magnitude_bits(v[2]), magnitude_bits(v[3])));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  if (_mm_cvtsi128_si32(four) > 0x7f7fffff) return false;
  const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(four));
  const float inverse = 127.0f / absmax;
  // Infinite where absmax is 0 or nearly: scale and codes are then 0.
  const bool usable = inverse <= __FLT_MAX__;
  const __m256 factor = _mm256_set1_ps(usable ? inverse : 0.0f);
  __m256i code[4];
  for (int i = 0; i < 4; ++i) code[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor));
  // Each dword of `mixed` holds four neighbours: dword 4 L + i is lane L of vector i.
  const __m256i mixed =
      _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]), _mm256_packs_epi32(code[2], code[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(mixed, order));
  *scale = usable ? absmax / 127.0f : 0.0f;
  const __m256i quarters =
      _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), mixed), _mm256_set1_epi16(1));
  const __m128i s = _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256(quarters, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(sums), _mm_hadd_epi32(s, s));
  return true;
}

// load(i) gives the values i .. i + 7 of the row.
template <class Load>
static inline void quantize_loaded(Load load, std::int64_t k, std::int8_t* q, float* scale,
                                   std::int32_t* sums) {
  for (std::int64_t i = 0; i < k; i += 32) {
    const __m256 v[4] = {load(i), load(i + 8), load(i + 16), load(i + 24)};
    if (quantize_group(v, q + i, scale + i / 32, sums + i / 16)) continue;
    alignas(32) float values[32];
    for (int j = 0; j < 4; ++j) _mm256_store_ps(values + 8 * j, v[j]);
    generic::quantize_row(values, 32, q + i, scale + i / 32, sums + i / 16);
  }
}

}  // namespace

void quantize_row(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums) {
  quantize_loaded([x](std::int64_t i) { return _mm256_loadu_ps(x + i); }, k, q, scale, sums);
}

void rms_norm_quantize(const float* x, const float* gain, float eps, std::int64_t k, std::int8_t* q,
                       float* scale, std::int32_t* sums) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const __m256 factor = _mm256_set1_ps(1.0f / __builtin_sqrtf(mean + eps));
  quantize_loaded(
      [=](std::int64_t i) {
        return _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor), _mm256_loadu_ps(gain + i));
      },
      k, q, scale, sums);
}

}  // namespace narrow::kernels::avx2

#include "kernels/avx2/attention.h"

#include "kernels/attention/flash.h"
#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {
namespace {

struct Vector {
  using F = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kMaxPanels = 1;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  // As kernels/attention.h defines it.
  static F exp2(F x) {
    const F low = set1(-126.0f);
    const F in = _mm256_cmp_ps(x, low, _CMP_GE_OQ);
    x = max(x, low);
    const F n = round(x), r = sub(x, n);
    F p = fma(set1(1.535336188319500e-4f), r, set1(1.339887440266574e-3f));
    p = fma(p, r, set1(9.618437357674640e-3f));
    p = fma(p, r, set1(5.550332471162809e-2f));
    p = fma(p, r, set1(2.402264791363012e-1f));
    p = fma(p, r, set1(6.931472028550421e-1f));
    p = fma(p, r, set1(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    const F scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
    return _mm256_and_ps(in, scaled);
  }
  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static float reduce_max(F x) { return horizontal_max(x); }
  // Lanes outside [begin, end) become -infinity.
  static F keep(F x, std::int64_t begin, std::int64_t end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(begin)), lane);
    const __m256i in =
        _mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end)), lane));
    return _mm256_blendv_ps(_mm256_set1_ps(-std::numeric_limits<float>::infinity()), x,
                            _mm256_castsi256_ps(in));
  }

  static F load_f16(const std::uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_f16(std::uint16_t* p, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F set1_f16(const std::byte* p) {
    std::uint16_t h;
    std::memcpy(&h, p, sizeof(h));
    return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(h)));
  }
  static F load_i8(const std::byte* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // Codes in bits shift .. shift + 3 (shift 0 or 4) of 8 bytes, minus 8.
  static F load_nibbles(const std::byte* p, int shift) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m256i codes =
        _mm256_and_si256(shift != 0 ? _mm256_srli_epi32(bytes, 4) : bytes, _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(8)));
  }
};

}  // namespace

constinit const AttentionKernels kAttention = {attention::store<Vector>, attention::attend<Vector>};

}  // namespace narrow::kernels::avx2

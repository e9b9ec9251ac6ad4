#include "kernels/avx512_vnni/attention.h"

#include <immintrin.h>

#include "kernels/attention/flash.h"

namespace narrow::kernels::avx512_vnni {
namespace {

struct Vector {
  using F = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kMaxPanels = 4;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  // As kernels/attention.h defines it.
  // Lanes below are masked off rather than left to underflow, which would trap into microcode.
  static F exp2(F x) {
    const F low = set1(-126.0f);
    const __mmask16 in = _mm512_cmp_ps_mask(x, low, _CMP_GE_OQ);
    x = max(x, low);
    const F n = round(x), r = sub(x, n);
    F p = fma(set1(1.535336188319500e-4f), r, set1(1.339887440266574e-3f));
    p = fma(p, r, set1(9.618437357674640e-3f));
    p = fma(p, r, set1(5.550332471162809e-2f));
    p = fma(p, r, set1(2.402264791363012e-1f));
    p = fma(p, r, set1(6.931472028550421e-1f));
    return _mm512_maskz_scalef_ps(in, fma(p, r, set1(1.0f)), n);
  }
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static float reduce_max(F x) { return _mm512_reduce_max_ps(x); }
  // Lanes outside [begin, end) become -infinity.
  static F keep(F x, std::int64_t begin, std::int64_t end) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 in = _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(static_cast<int>(begin))) &
                         _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(static_cast<int>(end)));
    return _mm512_mask_blend_ps(in, _mm512_set1_ps(-std::numeric_limits<float>::infinity()), x);
  }

  static F load_f16(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_f16(std::uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F set1_f16(const std::byte* p) {
    std::uint16_t h;
    std::memcpy(&h, p, sizeof(h));
    return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(h)));
  }
  static F load_i8(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // Codes in bits shift .. shift + 3 (shift 0 or 4) of 16 bytes, minus 8. The permutation looks at the lowest
  // four bits of its index only.
  static F load_nibbles(const std::byte* p, int shift) {
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    if (shift != 0) index = _mm512_srli_epi32(index, 4);
    return _mm512_permutexvar_ps(index, values);
  }
};

}  // namespace

constinit const AttentionKernels kAttention = {attention::store<Vector>, attention::attend<Vector>};

}  // namespace narrow::kernels::avx512_vnni

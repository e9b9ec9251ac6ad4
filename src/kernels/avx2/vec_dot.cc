#include "kernels/avx2/vec_dot.h"

#include "kernels/avx2/vector.h"

namespace narrow::kernels::avx2 {
namespace {

// widen turns eight 16-bit patterns into fp32.
template <class Widen>
static inline float dot_16_bit(const std::byte* w, const float* x, std::int64_t k, Widen widen) {
  return sum_row(
      k,
      [=](std::int64_t i, __m256 s) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 2 * i));
        return _mm256_fmadd_ps(widen(bits), _mm256_loadu_ps(x + i), s);
      },
      [=](std::int64_t i, float s) {
        std::uint16_t bits;
        __builtin_memcpy(&bits, w + 2 * i, sizeof(bits));
        return __builtin_fmaf(_mm256_cvtss_f32(widen(_mm_cvtsi32_si128(bits))), x[i], s);
      });
}

}  // namespace

float vec_dot_f16_f32(const std::byte* w, const float* x, std::int64_t k) {
  return dot_16_bit(w, x, k, [](__m128i bits) { return _mm256_cvtph_ps(bits); });
}

float vec_dot_bf16_f32(const std::byte* w, const float* x, std::int64_t k) {
  return dot_16_bit(w, x, k, [](__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  });
}

}  // namespace narrow::kernels::avx2

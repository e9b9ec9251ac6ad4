#include "formats/floats.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/scalar.h"
#include "formats/cast.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace narrow::formats {
namespace {

template <float (*kToF32)(std::uint8_t)>
void decode_f8(const std::byte* src, float* dst, std::int64_t k) {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> v{};
    for (std::size_t b = 0; b < v.size(); ++b) v[b] = kToF32(static_cast<std::uint8_t>(b));
    return v;
  }();
  for (std::int64_t i = 0; i < k; ++i) dst[i] = values[static_cast<std::uint8_t>(src[i])];
}

}  // namespace

void decode_f32(const std::byte* src, float* dst, std::int64_t k) {
  std::memcpy(dst, src, static_cast<std::size_t>(k) * sizeof(float));
}

void encode_f32(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions&) {
  std::memcpy(dst, src, static_cast<std::size_t>(k) * sizeof(float));
}

void decode_f16(const std::byte* src, float* dst, std::int64_t k) {
  std::int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= k; i += 8) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + 2 * i));
    _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(h));
  }
#endif
  for (; i < k; ++i) {
    f16 h;
    std::memcpy(&h, src + 2 * i, 2);
    dst[i] = to_f32(h);
  }
}

void encode_f16(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions&) {
  std::int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= k; i += 8) {
    const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + 2 * i), h);
  }
#endif
  for (; i < k; ++i) {
    const f16 h = to_f16(src[i]);
    std::memcpy(dst + 2 * i, &h, 2);
  }
}

void decode_bf16(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) {
    bf16 h;
    std::memcpy(&h, src + 2 * i, 2);
    dst[i] = to_f32(h);
  }
}

void encode_bf16(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions&) {
  for (std::int64_t i = 0; i < k; ++i) {
    const bf16 h = to_bf16(src[i]);
    std::memcpy(dst + 2 * i, &h, 2);
  }
}

void decode_f64(const std::byte* src, float* dst, std::int64_t k) {
  constexpr std::int64_t kChunk = 64;
  double aligned[kChunk];
  for (std::int64_t i = 0; i < k; i += kChunk) {
    const std::int64_t n = std::min(kChunk, k - i);
    std::memcpy(aligned, src + 8 * i, static_cast<std::size_t>(n) * 8);
    cast_f64_to_f32(aligned, dst + i, n);
  }
}

void encode_f64(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions&) {
  for (std::int64_t i = 0; i < k; ++i) {
    const double v = src[i];
    std::memcpy(dst + 8 * i, &v, 8);
  }
}

void decode_f8_e4m3(const std::byte* src, float* dst, std::int64_t k) {
  decode_f8<f8_e4m3_to_f32>(src, dst, k);
}

void decode_f8_e5m2(const std::byte* src, float* dst, std::int64_t k) {
  decode_f8<f8_e5m2_to_f32>(src, dst, k);
}

}  // namespace narrow::formats

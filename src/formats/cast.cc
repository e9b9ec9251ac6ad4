#include "formats/cast.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/floats.h"

namespace narrow {
namespace {

constexpr std::uint32_t kF32Infinity = 0x7f800000u;

// Counts over fp32 sources and the 16-bit words they became; `infinity` is the word of +infinity.
CastCounts count_16(const float* src, const std::byte* dst, std::int64_t n, std::uint32_t infinity) {
  std::uint64_t overflowed = 0, flushed = 0, infinite = 0, nan = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t from = std::bit_cast<std::uint32_t>(src[i]) & 0x7fffffffu;
    std::uint16_t word;
    std::memcpy(&word, dst + 2 * i, 2);
    const std::uint32_t to = word & 0x7fffu;
    overflowed += from < kF32Infinity && to == infinity ? 1u : 0u;
    flushed += from != 0 && to == 0 ? 1u : 0u;
    infinite += from == kF32Infinity ? 1u : 0u;
    nan += from > kF32Infinity ? 1u : 0u;
  }
  return {static_cast<std::uint64_t>(n), overflowed, flushed, infinite, nan};
}

CastCounts count_f32(const float* src, std::int64_t n) {
  std::uint64_t infinite = 0, nan = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t from = std::bit_cast<std::uint32_t>(src[i]) & 0x7fffffffu;
    infinite += from == kF32Infinity ? 1u : 0u;
    nan += from > kF32Infinity ? 1u : 0u;
  }
  return {static_cast<std::uint64_t>(n), 0, 0, infinite, nan};
}

}  // namespace

CastCounts& CastCounts::operator+=(const CastCounts& o) {
  values += o.values;
  overflowed += o.overflowed;
  flushed += o.flushed;
  infinite += o.infinite;
  nan += o.nan;
  return *this;
}

CastCounts cast_f64_to_f32(const double* src, float* dst, std::int64_t n) {
  CastCounts c{static_cast<std::uint64_t>(n), 0, 0, 0, 0};
  // From here on a double is nearer to 2^128 than to the largest float; converting it is undefined in C++.
  constexpr double kOverflow = 0x1.ffffffp127;
  for (std::int64_t i = 0; i < n; ++i) {
    const double v = src[i];
    if (std::isnan(v)) {
      ++c.nan;
      dst[i] = std::numeric_limits<float>::quiet_NaN();
    } else if (std::fabs(v) >= kOverflow) {
      ++(std::isinf(v) ? c.infinite : c.overflowed);
      dst[i] = std::copysign(std::numeric_limits<float>::infinity(), static_cast<float>(v > 0 ? 1 : -1));
    } else {
      dst[i] = static_cast<float>(v);
      if (v != 0 && dst[i] == 0) ++c.flushed;
    }
  }
  return c;
}

Result<CastCounts> cast_from_f32(Format to, const float* src, std::byte* dst, std::int64_t n) {
  switch (to) {
    case Format::kF32:
      formats::encode_f32(src, dst, n, {});
      return count_f32(src, n);
    case Format::kF16:
      formats::encode_f16(src, dst, n, {});
      return count_16(src, dst, n, 0x7c00u);
    case Format::kBF16:
      formats::encode_bf16(src, dst, n, {});
      return count_16(src, dst, n, 0x7f80u);
    default:
      return make_error(ErrorCode::kUnsupported, "cast to {}: only f32, f16 and bf16 are casts",
                        format_info(to).name);
  }
}

}  // namespace narrow

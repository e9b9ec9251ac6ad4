// Casts between floating-point types that count what did not fit. All round to nearest, ties to even.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "formats/format.h"

namespace narrow {

struct CastCounts {
  std::uint64_t values = 0;
  std::uint64_t overflowed = 0;  // finite values that became infinite
  std::uint64_t flushed = 0;     // non-zero values that became zero
  std::uint64_t infinite = 0;    // already infinite in the source
  std::uint64_t nan = 0;         // NaN in the source, and kept
  CastCounts& operator+=(const CastCounts& o);
};

CastCounts cast_f64_to_f32(const double* src, float* dst, std::int64_t n);

// fp32 to `to`, which is kF32 (a copy), kF16 or kBF16; anything else is kUnsupported. dst need not be
// aligned. From fp64, cast to fp32 first: the second rounding changes a half or bfloat16 only where the first
// one met a tie.
Result<CastCounts> cast_from_f32(Format to, const float* src, std::byte* dst, std::int64_t n);

}  // namespace narrow

// Textbook affine integers, q = round(x / S + Z): 2 to 8 bits, any granularity, no file format attached.
// Rounding is to nearest, ties to even; codes are cut to the range of the bits.
// Source of the terms: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
// Integer-Arithmetic-Only Inference" (arXiv:1712.05877).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace narrow::formats {

// Which elements of a [rows, cols] matrix share S and Z. Per channel of a weight matrix [n, k] and per token
// of activations [m, k] are both kRow.
enum class AffineScope : std::uint8_t {
  kTensor,
  kRow,
  kGroup,  // `group` neighbours of one row; the last group of a row is shorter where cols is no multiple
};

enum class AffineMapping : std::uint8_t {
  kSymmetric,  // Z = 0, signed codes: real = S * q
  kZeroPoint,  // unsigned codes, whole Z within their range, so 0 is exact: real = S * (q - Z)
  kMin,        // unsigned codes, fp32 min, no zero needed: real = S * q + min
};

enum class AffineRange : std::uint8_t {
  kAbsMax,        // symmetric: S from max |x|; the others: S and Z (or min) from min and max
  kPercentile,    // the same from percentiles, clipping the rest
  kLeastSquares,  // search for the least squared error; never worse than kAbsMax
};

struct AffineSpec {
  int bits = 8;  // 2..8
  AffineMapping mapping = AffineMapping::kSymmetric;
  // Symmetric codes are -(2^(bits-1) - 1) .. 2^(bits-1) - 1, so that x and -x mirror each other, and S is
  // max |x| / (2^(bits-1) - 1). True adds the code -2^(bits-1); S is then max |x| / (2^(bits-1) - 1/2), half
  // the width of the range, which costs the positive end half a step.
  bool full_range = false;
  AffineScope scope = AffineScope::kRow;
  std::int64_t group = 0;  // kGroup only
  AffineRange range = AffineRange::kAbsMax;
  // kPercentile, in (50, 100]: symmetric clips |x| at this percentile, the others clip x below percentile
  // 100 - p and above p (linear interpolation between ranks, as numpy.percentile).
  double percentile = 99.9;
};

struct AffineQuantized {
  AffineSpec spec;
  std::int64_t rows = 0, cols = 0;
  std::int64_t groups_per_row = 0;        // 0 for kTensor
  std::vector<std::uint8_t> codes;        // [rows, cols]; symmetric: int8 as two's complement
  std::vector<float> scales;              // [rows, groups_per_row], one in all for kTensor
  std::vector<std::int32_t> zero_points;  // as scales; kZeroPoint only
  std::vector<float> mins;                // as scales; kMin only

  int code(std::int64_t i) const {
    const std::uint8_t c = codes[static_cast<std::size_t>(i)];
    return spec.mapping == AffineMapping::kSymmetric ? static_cast<std::int8_t>(c) : c;
  }
  // Index into scales of an element.
  std::size_t group_of(std::int64_t row, std::int64_t col) const;
};

// Smallest and largest code of a spec.
struct CodeRange {
  int low = 0, high = 0;
};
CodeRange affine_code_range(const AffineSpec& spec);

// What one group's codes mean.
struct AffineParams {
  float scale = 1;
  float zero_point = 0;  // whole; kZeroPoint
  float min = 0;         // kMin
};
// Those whose codes cover [lo, hi] (AffineRange::kAbsMax); exact for a range of one value.
AffineParams affine_cover(const AffineSpec& spec, double lo, double hi);

// x is [rows, cols], row-major. A group whose elements are all equal is exact in every mapping. NaN or
// infinity is kNumeric with its position; a bad spec or shape is kInvalidArgument.
Result<AffineQuantized> affine_quantize(const float* x, std::int64_t rows, std::int64_t cols,
                                        const AffineSpec& spec);

// Writes [rows, cols] floats. An end code may lie half a step past the largest input: finite up to 2e38.
void affine_dequantize(const AffineQuantized& q, float* x);

// Codes of `bits` (2..8) each as one stream: bit b of code i is bit (i * bits + b) of the stream, and bit n
// of the stream is bit n % 8 (counted from the lowest) of byte n / 8. Unused bits of the last byte are 0.
std::vector<std::byte> pack_codes(std::span<const std::uint8_t> codes, int bits);
// Reads n codes; `sign_extend` for symmetric ones. kCorrupt when `packed` is shorter than n codes.
Result<std::vector<std::uint8_t>> unpack_codes(std::span<const std::byte> packed, int bits, std::int64_t n,
                                               bool sign_extend);

}  // namespace narrow::formats

// Fits of super-blocks: 256 weights in 8 or 16 blocks whose scales are small integers times one f16.
// Block fits come first; then the second level is searched (the f16 scale over a grid, integer scales among
// their neighbours, with codes rounded anew each time), alternating with weighted least squares for the f16
// scales.
#pragma once

#include <cstdint>

#include "base/scalar.h"
#include "formats/fit.h"

namespace narrow::formats {

// x = d * sc[b] * q: q3_k (q in [-4, 3], sc in [-32, 31]) and q6_k (q in [-32, 31], sc in [-128, 127]).
struct SymmetricSuperBlock {
  f16 d;
  std::int8_t sc[16];
  std::int8_t q[256];
};
struct SymmetricSuperSpec {
  int code_lo, code_hi;
  int scale_lo, scale_hi;
  WeightRule rule;
};
// 16 blocks of 16.
void encode_symmetric_super_block(const SymmetricSuperSpec& spec, const float* x, const float* importance,
                                  bool search, SymmetricSuperBlock* out);

// x = d * sc[b] * q - dmin * mn[b]: q2_k (16 blocks), q4_k and q5_k (8 blocks). Codes, sc and mn start at 0.
struct AffineSuperBlock {
  f16 d, dmin;
  std::uint8_t sc[16], mn[16];
  std::uint8_t q[256];
};
struct AffineSuperSpec {
  int code_hi;
  int scale_hi;
  WeightRule rule;
};
// N is the length of a block: 16 or 32.
template <int N>
void encode_affine_super_block(const AffineSuperSpec& spec, const float* x, const float* importance,
                               bool search, AffineSuperBlock* out);

}  // namespace narrow::formats

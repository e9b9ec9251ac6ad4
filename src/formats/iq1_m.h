// iq1_m: super-block of 256, groups of 8 from a 2048-entry ternary grid, 1.75 bpw.
// Byte 0: qs, low byte of the grid index per group of 8. Byte 32: qh, one nibble per group: three upper index
// bits and the sign of the shift. Byte 48: scales, four u16: four 3-bit scales (one per 16 weights) each, and
// in their top nibbles the four nibbles of the f16 super-block scale. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ1_M {
  std::uint8_t qs[kSuperBlock / 8];
  std::uint8_t qh[kSuperBlock / 16];
  std::uint8_t scales[kSuperBlock / 32];
};
static_assert(sizeof(BlockIQ1_M) == 56);

void decode_iq1_m(const std::byte* src, float* dst, std::int64_t k);
void encode_iq1_m(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 8 (formats/unit_codec.h).
void decide_iq1_m(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

// iq1_s: super-block of 256, groups of 8 from a 2048-entry ternary grid, 1.5625 bpw.
// Byte 0: d. Byte 2: qs, low byte of the grid index per group of 8. Byte 34: qh, one u16 per block of 32:
// four times three upper index bits, a 3-bit scale, the sign of the shift. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ1_S {
  f16 d;
  std::uint8_t qs[kSuperBlock / 8];
  std::uint16_t qh[kSuperBlock / 32];
};
static_assert(sizeof(BlockIQ1_S) == 50);

void decode_iq1_s(const std::byte* src, float* dst, std::int64_t k);
void encode_iq1_s(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 8 (formats/unit_codec.h).
void decide_iq1_s(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

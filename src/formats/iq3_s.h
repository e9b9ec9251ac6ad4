// iq3_s: super-block of 256, groups of 4 from a 512-entry grid, 3.4375 bpw.
// Byte 0: d. Byte 2: qs, low byte of the grid index per group of 4. Byte 66: qh, its ninth bit. Byte 74:
// signs, one bit per weight. Byte 106: scales, one nibble per 32 weights. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ3_S {
  f16 d;
  std::uint8_t qs[kSuperBlock / 4];
  std::uint8_t qh[kSuperBlock / 32];
  std::uint8_t signs[kSuperBlock / 8];
  std::uint8_t scales[kSuperBlock / 64];
};
static_assert(sizeof(BlockIQ3_S) == 110);

void decode_iq3_s(const std::byte* src, float* dst, std::int64_t k);
void encode_iq3_s(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 4 (formats/unit_codec.h).
void decide_iq3_s(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

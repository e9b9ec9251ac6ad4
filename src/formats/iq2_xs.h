// iq2_xs: super-block of 256, groups of 8 from a 512-entry grid, 2.3125 bpw.
// Byte 0: d. Byte 2: qs, one u16 per group of 8: 9-bit grid index, 7-bit sign pattern. Byte 66: scales, one
// nibble per 16 weights. Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ2_XS {
  f16 d;
  std::uint16_t qs[kSuperBlock / 8];
  std::uint8_t scales[kSuperBlock / 32];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

void decode_iq2_xs(const std::byte* src, float* dst, std::int64_t k);
void encode_iq2_xs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 8 (formats/unit_codec.h).
void decide_iq2_xs(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

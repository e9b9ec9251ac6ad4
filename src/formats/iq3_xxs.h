// iq3_xxs: super-block of 256, groups of 4 from a 256-entry grid, 3.0625 bpw.
// Byte 0: d. Byte 2: qs[0..63], one grid index per group of 4. Byte 66: qs[64..95], per block of 32 a
// little-endian u32: four 7-bit sign patterns and a 4-bit scale on top. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ3_XXS {
  f16 d;
  std::uint8_t qs[3 * kSuperBlock / 8];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

void decode_iq3_xxs(const std::byte* src, float* dst, std::int64_t k);
void encode_iq3_xxs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 8 (formats/unit_codec.h).
void decide_iq3_xxs(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

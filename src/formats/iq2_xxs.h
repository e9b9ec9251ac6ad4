// iq2_xxs: super-block of 256, groups of 8 from a 256-entry grid, 2.0625 bpw.
// Byte 0: d. Byte 2: qs, per block of 32 four u16 = two little-endian u32: four 8-bit grid indices; then four
// 7-bit sign patterns and a 4-bit scale on top. Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ2_XXS {
  f16 d;
  std::uint16_t qs[kSuperBlock / 8];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

void decode_iq2_xxs(const std::byte* src, float* dst, std::int64_t k);
void encode_iq2_xxs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 8 (formats/unit_codec.h).
void decide_iq2_xxs(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

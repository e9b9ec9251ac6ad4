// iq4_xs: super-block of 256 = 8 blocks of 32, 4-bit codes into iq4_nl's table, 6-bit scales. 4.25 bpw.
// x = (d * (sc - 32)) * table[q] of its block.
// Byte 0: d. Byte 2: scales_h, u16 with the upper two bits of block b's scale at bits 2 b. Byte 4: scales_l,
// low nibbles, even block first. Byte 8: qs, per block 16 bytes: low nibble = weight j, high nibble = weight
// j + 16. Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"
#include "formats/sub_scales.h"

namespace narrow::formats {

struct BlockIQ4_XS {
  f16 d;
  std::uint16_t scales_h;
  std::uint8_t scales_l[kSuperBlock / 64];
  std::uint8_t qs[kSuperBlock / 2];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

void decode_iq4_xs(const std::byte* src, float* dst, std::int64_t k);
void encode_iq4_xs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_iq4_xs(std::byte* block, const std::uint8_t* codes);
// The block's scales, apart from its codes.
SubScales read_scales_iq4_xs(const std::byte* block);
void write_scales_iq4_xs(std::byte* block, const SubScales& scales);

}  // namespace narrow::formats

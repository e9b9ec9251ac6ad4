// q2_k: super-block of 256 = 16 blocks of 16, 2-bit codes, 4-bit scales and mins. 2.625 bpw.
// x = (d * sc) * q - dmin * mn of its block.
// Byte 0: scales[b] of block b, low nibble sc, high nibble mn. Byte 16: qs; weight 128 h + 32 s + j (h < 2, s
// < 4, j < 32) is in qs[32 h + j] at bits 2 s. Byte 80: d. Byte 82: dmin. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"
#include "formats/sub_scales.h"

namespace narrow::formats {

struct BlockQ2_K {
  std::uint8_t scales[kSuperBlock / 16];
  std::uint8_t qs[kSuperBlock / 4];
  f16 d, dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

void decode_q2_k(const std::byte* src, float* dst, std::int64_t k);
void encode_q2_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q2_k(std::byte* block, const std::uint8_t* codes);
// The block's scales, apart from its codes.
SubScales read_scales_q2_k(const std::byte* block);
void write_scales_q2_k(std::byte* block, const SubScales& scales);

}  // namespace narrow::formats

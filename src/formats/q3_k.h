// q3_k: super-block of 256 = 16 blocks of 16, 3-bit codes, 6-bit scales. 3.4375 bpw.
// x = (d * (sc - 32)) * (q - 4) of its block.
// Byte 0: hmask; the third bit of weight 32 b + j (b < 8, j < 32) is bit b of hmask[j]. Byte 32: qs; low two
// bits of weight 128 h + 32 s + j are in qs[32 h + j] at bits 2 s. Byte 96: scales; low nibble of block b < 8
// is the low nibble of scales[b], of block b >= 8 the high nibble of scales[b - 8]; the upper two bits of
// block b are in scales[8 + b % 4] at bits 2 (b / 4). Byte 108: d. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"
#include "formats/sub_scales.h"

namespace narrow::formats {

struct BlockQ3_K {
  std::uint8_t hmask[kSuperBlock / 8];
  std::uint8_t qs[kSuperBlock / 4];
  std::uint8_t scales[12];
  f16 d;
};
static_assert(sizeof(BlockQ3_K) == 110);

void decode_q3_k(const std::byte* src, float* dst, std::int64_t k);
void encode_q3_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q3_k(std::byte* block, const std::uint8_t* codes);
// The block's scales, apart from its codes.
SubScales read_scales_q3_k(const std::byte* block);
void write_scales_q3_k(std::byte* block, const SubScales& scales);

}  // namespace narrow::formats

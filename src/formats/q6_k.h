// q6_k: super-block of 256 = 16 blocks of 16, 6-bit codes, signed 8-bit scales. 6.5625 bpw.
// x = (d * sc) * (q - 32) of its block.
// Byte 0: ql; ql[64 h + j] (h < 2, j < 64) holds the low four bits of weight 128 h + j (low nibble) and of
// weight 128 h + 64 + j (high nibble). Byte 128: qh; qh[32 h + j] at bits 2 s holds the upper two bits of
// weight 128 h + 32 s + j. Byte 192: scales. Byte 208: d. Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"
#include "formats/sub_scales.h"

namespace narrow::formats {

struct BlockQ6_K {
  std::uint8_t ql[kSuperBlock / 2];
  std::uint8_t qh[kSuperBlock / 4];
  std::int8_t scales[kSuperBlock / 16];
  f16 d;
};
static_assert(sizeof(BlockQ6_K) == 210);

void decode_q6_k(const std::byte* src, float* dst, std::int64_t k);
void encode_q6_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q6_k(std::byte* block, const std::uint8_t* codes);
// The block's scales, apart from its codes.
SubScales read_scales_q6_k(const std::byte* block);
void write_scales_q6_k(std::byte* block, const SubScales& scales);

}  // namespace narrow::formats

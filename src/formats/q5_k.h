// q5_k: super-block of 256 = 8 blocks of 32, 5-bit codes, 6-bit scales and mins. 5.5 bpw.
// x = (d * sc) * q - dmin * mn of its block.
// Byte 0: d. Byte 2: dmin. Byte 4: scales. Byte 16: qh; bit b of qh[j] is the fifth bit of weight 32 b + j.
// Byte 48: qs; qs[32 c + j] holds the low four bits of weight 64 c + j (low nibble) and weight 64 c + 32 + j
// (high nibble). Bytes of scales[12]: for block b < 4, scales[b] & 63 is sc and scales[4 + b] & 63 is mn; for
// b >= 4, the low four bits of sc and mn are the nibbles (low, high) of scales[4 + b], their upper two are
// the top bits of scales[b - 4] and scales[b]. Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"
#include "formats/sub_scales.h"

namespace narrow::formats {

struct BlockQ5_K {
  f16 d, dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[kSuperBlock / 8];
  std::uint8_t qs[kSuperBlock / 2];
};
static_assert(sizeof(BlockQ5_K) == 176);

void decode_q5_k(const std::byte* src, float* dst, std::int64_t k);
void encode_q5_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q5_k(std::byte* block, const std::uint8_t* codes);
// The block's scales, apart from its codes.
SubScales read_scales_q5_k(const std::byte* block);
void write_scales_q5_k(std::byte* block, const SubScales& scales);

}  // namespace narrow::formats

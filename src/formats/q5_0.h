// q5_0: 32 weights, one f16 scale, 5-bit codes. 5.5 bpw. x = d * (q - 16).
// Byte 0: d. Byte 2: qh, little-endian u32 whose bit j is the fifth bit of weight j. Byte 6: qs[j], low four
// bits of weight j (low nibble) and of weight j + 16 (high nibble).
// Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockQ5_0 {
  f16 d;
  std::uint8_t qh[4];
  std::uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

void decode_q5_0(const std::byte* src, float* dst, std::int64_t k);
void encode_q5_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q5_0(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

// q4_0: 32 weights, one f16 scale, 4-bit codes. 4.5 bpw. x = d * (q - 8).
// Byte 0: d. Byte 2: qs[j], low nibble = code of weight j, high nibble = code of weight j + 16.
// Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockQ4_0 {
  f16 d;
  std::uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

void decode_q4_0(const std::byte* src, float* dst, std::int64_t k);
void encode_q4_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q4_0(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

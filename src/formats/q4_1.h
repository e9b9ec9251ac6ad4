// q4_1: 32 weights, f16 scale and f16 min, 4-bit codes. 5 bpw. x = d * q + m.
// Byte 0: d. Byte 2: m. Byte 4: qs[j], low nibble = weight j, high nibble = weight j + 16.
// Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockQ4_1 {
  f16 d, m;
  std::uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

void decode_q4_1(const std::byte* src, float* dst, std::int64_t k);
void encode_q4_1(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q4_1(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

// iq4_nl: 32 weights, one f16 scale, 4-bit codes into a fixed non-linear table. 4.5 bpw. x = d * table[q].
// Byte 0: d. Byte 2: qs[j], low nibble = weight j, high nibble = weight j + 16.
// Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ4_NL {
  f16 d;
  std::uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

void decode_iq4_nl(const std::byte* src, float* dst, std::int64_t k);
void encode_iq4_nl(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_iq4_nl(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

// tq2_0: 256 ternary weights, 2-bit codes, one f16 scale. 2.0625 bpw. x = d * (q - 1).
// Byte 0: qs; weight 128 h + 32 s + j is in qs[32 h + j] at bits 2 s. Byte 64: d.
// Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockTQ2_0 {
  std::uint8_t qs[kSuperBlock / 4];
  f16 d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

void decode_tq2_0(const std::byte* src, float* dst, std::int64_t k);
void encode_tq2_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_tq2_0(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

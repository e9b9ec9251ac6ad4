// tq1_0: 256 ternary weights, five per byte in base 3, one f16 scale. 1.6875 bpw. x = d * (q - 1).
// Byte 0: qs, 48 bytes of five base-3 digits (first 32 bytes hold weights 0..159 as 5 x 32, next 16 hold
// 160..239 as 5 x 16). Byte 48: qh, 4 bytes of four digits (weights 240..255 as 4 x 4). Byte 52: d. Source:
// ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockTQ1_0 {
  std::uint8_t qs[(kSuperBlock - 4 * kSuperBlock / 64) / 5];
  std::uint8_t qh[kSuperBlock / 64];
  f16 d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

void decode_tq1_0(const std::byte* src, float* dst, std::int64_t k);
void encode_tq1_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_tq1_0(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

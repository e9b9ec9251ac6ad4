// q8_0: 32 weights, one f16 scale, signed 8-bit codes. 8.5 bpw. x = d * q.
// Byte 0: d. Byte 2: qs[j], code of weight j.
// Source: ggml's public block layout (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockQ8_0 {
  f16 d;
  std::int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

void decode_q8_0(const std::byte* src, float* dst, std::int64_t k);
void encode_q8_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_q8_0(std::byte* block, const std::uint8_t* codes);

}  // namespace narrow::formats

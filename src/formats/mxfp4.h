// mxfp4: 32 weights, one E8M0 scale, E2M1 codes. 4.25 bpw. x = 2^(e - 127) * e2m1[q].
// Byte 0: e. Byte 1: qs[j], low nibble = weight j, high nibble = weight j + 16.
// Sources: OCP microscaling formats 1.0 (values); ggml-common.h (order of the nibbles).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockMXFP4 {
  std::uint8_t e;
  std::uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

void decode_mxfp4(const std::byte* src, float* dst, std::int64_t k);
void encode_mxfp4(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// The codes of one block, 0 and up as levels ascend; its scales stay (formats/grid.h).
void write_mxfp4(std::byte* block, const std::uint8_t* codes);
// The block's scale, of whole levels (twice E2M1's); writing takes the nearest power of two.
float read_scale_mxfp4(const std::byte* block);
void write_scale_mxfp4(std::byte* block, float scale);

}  // namespace narrow::formats

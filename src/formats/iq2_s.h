// iq2_s: super-block of 256, groups of 8 from a 1024-entry grid, 2.5625 bpw.
// Byte 0: d. Byte 2: qs, 32 low index bytes then 32 sign bytes, one of each per group of 8. Byte 66: qh, two
// upper index bits per group. Byte 74: scales, one nibble per 16 weights. Source: ggml's public block layout
// (ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/format.h"

namespace narrow::formats {

struct BlockIQ2_S {
  f16 d;
  std::uint8_t qs[kSuperBlock / 4];
  std::uint8_t qh[kSuperBlock / 32];
  std::uint8_t scales[kSuperBlock / 32];
};
static_assert(sizeof(BlockIQ2_S) == 82);

void decode_iq2_s(const std::byte* src, float* dst, std::int64_t k);
void encode_iq2_s(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
// Units of 8 (formats/unit_codec.h).
void decide_iq2_s(std::byte* block, int u, const float* x, const float* metric, float* y);

}  // namespace narrow::formats

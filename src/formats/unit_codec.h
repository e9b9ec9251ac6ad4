// Codes of a few neighbouring weights chosen anew inside an encoded block, for algorithms that decide weights
// one after another and feed errors forward. The vector-codebook formats decide 4 or 8 weights at once.
#pragma once

#include <cstddef>

#include "formats/format.h"

namespace narrow::formats {

struct UnitCodec {
  int unit;  // weights decided together; divides the block size
  // Chooses the codes of unit u (0 <= u < block size / unit) of an encoded block for the target x[unit], so
  // that (x - y)^T M (x - y) is small, M = metric [unit, unit] row-major, symmetric, positive (null:
  // identity). Writes them into the block, whose scales stay, and what they decode to into y[unit]. Never a
  // greater loss than that of the codes found in the block; exact for a diagonal M; else the best of a list
  // of candidates. Finite inputs; any thread; the same inputs give the same bytes.
  void (*decide)(std::byte* block, int u, const float* x, const float* metric, float* y);
  // Of the block's f16 factor, to which its values are proportional; -1: its bits are spread.
  int d_offset = 0;
};

// Null for formats whose weights are decided one by one, and for those without an encoder.
const UnitCodec* unit_codec(Format f);

}  // namespace narrow::formats

// The grid that an encoded block's scales span, apart from its codes: what methods need that choose codes
// themselves (error feedback, coordinate descent, learned rounding, fake quantization).
// Value of code c of an element in group g: scale[g] * levels[c] + min[g].
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/format.h"

namespace narrow::formats {

struct GridCodec {
  int group;                      // elements that share a scale, and a min
  std::span<const float> levels;  // of codes 0, 1, ...; ascending
  bool uniform;                   // levels are whole numbers in a row: nearest is by rounding
  // Codes [block_size] of one block; the block's scales stay.
  void (*write)(std::byte* block, const std::uint8_t* codes);
  // Where the block's f16 factors lie in it, -1 for none. Its values are linear in them: d * A + dmin * B.
  int d_offset, dmin_offset;
};

// Null for formats without scalar codes (floats, iq1 to iq3).
const GridCodec* grid_codec(Format f);

// The grid of an encoded block: scale and min [block_size / group].
void read_grid(Format f, const std::byte* block, float* scale, float* min);

}  // namespace narrow::formats

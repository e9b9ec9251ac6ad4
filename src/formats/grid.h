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

// The grid of an encoded block: scale and min [block_size / group], those by which decode multiplies and
// adds: scale * level + min in fp32 (without the sum where dmin_offset is -1; min is then 0) is its value bit
// for bit.
void read_grid(Format f, const std::byte* block, float* scale, float* min);

// Stores the scales and mins that the format has nearest to the given ones; codes stay. Of a super-block's
// f16 factors the best of three are taken: the block's own (so that what read_grid gave is stored unchanged),
// those that are least-squares for the block's own multiples, and those that the largest scale asks for. What
// is not finite makes the block decode to NaN.
void write_grid(Format f, std::byte* block, const float* scale, const float* min);

}  // namespace narrow::formats

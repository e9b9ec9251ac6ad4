// The twelve bytes that hold eight 6-bit scales and eight 6-bit mins in q4_k and q5_k; layout in q4_k.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/block.h"
#include "formats/sub_scales.h"

namespace narrow::formats {

inline void unpack_scales_6bit(const std::uint8_t (&packed)[12], std::uint8_t (&sc)[8],
                               std::uint8_t (&mn)[8]) {
  for (int b = 0; b < 4; ++b) {
    sc[b] = packed[b] & 63;
    mn[b] = packed[4 + b] & 63;
    sc[4 + b] = static_cast<std::uint8_t>((packed[8 + b] & 15) | ((packed[b] >> 6) << 4));
    mn[4 + b] = static_cast<std::uint8_t>((packed[8 + b] >> 4) | ((packed[4 + b] >> 6) << 4));
  }
}

// sc and mn: at least 8 values below 64.
inline void pack_scales_6bit(const std::uint8_t* sc, const std::uint8_t* mn, std::uint8_t (&packed)[12]) {
  for (int b = 0; b < 4; ++b) {
    packed[b] = static_cast<std::uint8_t>(sc[b] | ((sc[4 + b] >> 4) << 6));
    packed[4 + b] = static_cast<std::uint8_t>(mn[b] | ((mn[4 + b] >> 4) << 6));
    packed[8 + b] = static_cast<std::uint8_t>((sc[4 + b] & 15) | ((mn[4 + b] & 15) << 4));
  }
}

// Of a block with d, dmin and these twelve bytes in `scales`.
template <class Block>
SubScales read_scales_6bit(const std::byte* block) {
  const auto b = load_block<Block>(block, 0);
  SubScales s{b.d, b.dmin};
  std::uint8_t sc[8], mn[8];
  unpack_scales_6bit(b.scales, sc, mn);
  for (int g = 0; g < 8; ++g) s.sc[g] = sc[g], s.mn[g] = mn[g];
  return s;
}

template <class Block>
void write_scales_6bit(std::byte* block, const SubScales& scales) {
  auto b = load_block<Block>(block, 0);
  b.d = scales.d;
  b.dmin = scales.dmin;
  std::uint8_t sc[8], mn[8];
  for (int g = 0; g < 8; ++g) {
    sc[g] = static_cast<std::uint8_t>(scales.sc[g]);
    mn[g] = static_cast<std::uint8_t>(scales.mn[g]);
  }
  pack_scales_6bit(sc, mn, b.scales);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

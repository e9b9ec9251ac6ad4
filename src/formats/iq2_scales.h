// What iq2_xs and iq2_s share: blocks of 16 weights with 4-bit scales, two in a byte, in steps of d / 8.
#pragma once

#include "formats/iq_fit.h"

namespace narrow::formats {

// The scale of group g of 8 weights.
template <class Block>
float iq2_group_scale(const Block& b, int g) {
  const int nibble = (b.scales[g / 4] >> (4 * (g / 2 % 2))) & 15;
  return to_f32(b.d) * (0.5f + static_cast<float>(nibble)) * 0.25f;
}

// Fills scales that are 0.
template <class Block>
void pack_iq2_steps(const int* step, Block& b) {
  for (int s = 0; s < kSuperBlock / 16; ++s) {
    b.scales[s / 2] = static_cast<std::uint8_t>(b.scales[s / 2] | (step[s] << (4 * (s % 2))));
  }
}

// For IqSuperBlock. kEven: the signs of a group must be even.
template <bool kEven, const IqCodebook8& (*kBook)()>
struct Iq2Codec {
  static constexpr int kBlock = 16, kSteps = 16;
  static constexpr float kUnit = 0.125f, kBottom = 8, kTop = 43, kTypical = 20;
  static constexpr bool kSigned = false;
  static IqSums find(const IqTarget& target, float scale, IqGroup* codes) {
    return find_signed_block<kEven>(kBook(), kBlock, target, scale, codes);
  }
};

}  // namespace narrow::formats

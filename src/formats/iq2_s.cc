#include "formats/iq2_s.h"

#include "formats/iq_grids.h"

namespace narrow::formats {

void decode_iq2_s(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ2_S>(src, i);
    const float d = to_f32(b.d);
    const std::uint8_t* signs = b.qs + kSuperBlock / 8;
    for (int g = 0; g < kSuperBlock / 8; ++g) {
      const int nibble = (b.scales[g / 4] >> (4 * (g / 2 % 2))) & 15;
      const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
      const std::uint32_t high = (b.qh[g / 4] >> (2 * (g % 4))) & 3u;
      iq_expand(scale, kIQ2SGrid[b.qs[g] | (high << 8)], signs[g], dst + 8 * g);
    }
  }
}

}  // namespace narrow::formats

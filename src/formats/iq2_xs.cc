#include "formats/iq2_xs.h"

#include "formats/iq_grids.h"

namespace narrow::formats {

void decode_iq2_xs(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ2_XS>(src, i);
    const float d = to_f32(b.d);
    for (int g = 0; g < kSuperBlock / 8; ++g) {
      const int nibble = (b.scales[g / 4] >> (4 * (g / 2 % 2))) & 15;
      const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
      iq_expand(scale, kIQ2XSGrid[b.qs[g] & 0x1ffu], iq_signs(b.qs[g] >> 9), dst + 8 * g);
    }
  }
}

}  // namespace narrow::formats

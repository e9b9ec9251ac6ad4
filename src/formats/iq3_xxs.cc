#include "formats/iq3_xxs.h"

#include "formats/iq_grids.h"

namespace narrow::formats {

void decode_iq3_xxs(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ3_XXS>(src, i);
    const float d = to_f32(b.d);
    for (int s = 0; s < kSuperBlock / 32; ++s) {
      std::uint32_t word;
      std::memcpy(&word, b.qs + kSuperBlock / 4 + 4 * s, sizeof(word));
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
      for (int g = 0; g < 8; ++g) {
        const std::uint32_t signs = iq_signs((word >> (7 * (g / 2))) & 0x7fu) >> (4 * (g % 2));
        iq_expand(scale, kIQ3XXSGrid[b.qs[8 * s + g]], signs, dst + 32 * s + 4 * g);
      }
    }
  }
}

}  // namespace narrow::formats

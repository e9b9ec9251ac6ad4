#include "formats/iq2_xxs.h"

#include "formats/iq_grids.h"

namespace narrow::formats {

void decode_iq2_xxs(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ2_XXS>(src, i);
    const float d = to_f32(b.d);
    for (int s = 0; s < kSuperBlock / 32; ++s) {
      std::uint32_t words[2];
      std::memcpy(words, b.qs + 4 * s, sizeof(words));
      const float scale = d * (0.5f + static_cast<float>(words[1] >> 28)) * 0.25f;
      for (int g = 0; g < 4; ++g) {
        iq_expand(scale, kIQ2XXSGrid[(words[0] >> (8 * g)) & 0xffu], iq_signs((words[1] >> (7 * g)) & 0x7fu),
                  dst + 32 * s + 8 * g);
      }
    }
  }
}

}  // namespace narrow::formats

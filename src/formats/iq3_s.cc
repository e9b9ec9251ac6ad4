#include "formats/iq3_s.h"

#include "formats/iq_grids.h"

namespace narrow::formats {

void decode_iq3_s(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ3_S>(src, i);
    const float d = to_f32(b.d);
    for (int g = 0; g < kSuperBlock / 4; ++g) {
      const int s = g / 8;
      const int nibble = (b.scales[s / 2] >> (4 * (s % 2))) & 15;
      const float scale = d * static_cast<float>(2 * nibble + 1);
      const std::uint32_t high = (b.qh[s] >> (g % 8)) & 1u;
      iq_expand(scale, kIQ3SGrid[b.qs[g] | (high << 8)], b.signs[g / 2] >> (4 * (g % 2)), dst + 4 * g);
    }
  }
}

}  // namespace narrow::formats

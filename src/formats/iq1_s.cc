#include "formats/iq1_s.h"

#include "formats/iq_grids.h"

namespace narrow::formats {

void decode_iq1_s(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ1_S>(src, i);
    const float d = to_f32(b.d);
    for (int s = 0; s < kSuperBlock / 32; ++s) {
      const std::uint32_t qh = b.qh[s];
      const float scale = d * static_cast<float>(2 * ((qh >> 12) & 7u) + 1);
      const float delta = (qh & 0x8000u) != 0 ? -kIQ1Delta : kIQ1Delta;
      for (int g = 0; g < 4; ++g) {
        const auto& grid = kIQ1Grid[b.qs[4 * s + g] | (((qh >> (3 * g)) & 7u) << 8)];
        for (int j = 0; j < 8; ++j) dst[32 * s + 8 * g + j] = scale * (static_cast<float>(grid[j]) + delta);
      }
    }
  }
}

}  // namespace narrow::formats

#include "formats/iq1_m.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"

namespace narrow::formats {
namespace {

struct Codec {
  static constexpr int kBlock = 16, kSteps = 8;
  static constexpr float kUnit = 1, kBottom = 0.875f, kTop = 1.125f, kTypical = 0.85f;
  static constexpr bool kSigned = true;
  static IqSums find(const IqTarget& target, float scale, IqGroup* codes) {
    return find_iq1_block<1>(kBlock, target, scale, codes);
  }
};

}  // namespace

void decode_iq1_m(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ1_M>(src, i);
    // The top nibbles of the four scale words make up the f16 scale of the super-block.
    std::uint16_t scales[4];
    std::memcpy(scales, b.scales, sizeof(scales));
    const auto d_bits =
        (scales[0] >> 12) | ((scales[1] >> 12) << 4) | ((scales[2] >> 12) << 8) | ((scales[3] >> 12) << 12);
    const float d = to_f32(f16{static_cast<std::uint16_t>(d_bits)});
    for (int g = 0; g < kSuperBlock / 8; ++g) {
      const int half = g / 2;  // 16 weights share a scale
      const float scale = d * static_cast<float>(2 * ((scales[half / 4] >> (3 * (half % 4))) & 7) + 1);
      const std::uint32_t qh = b.qh[g / 2] >> (4 * (g % 2));
      const float delta = (qh & 8u) != 0 ? -kIQ1Delta : kIQ1Delta;
      const auto& grid = kIQ1Grid[b.qs[g] | ((qh & 7u) << 8)];
      for (int j = 0; j < 8; ++j) dst[8 * g + j] = scale * (static_cast<float>(grid[j]) + delta);
    }
  }
}

void encode_iq1_m(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ1_M b{};
    if (!fit.zero) {
      std::uint16_t scales[4];
      for (int s = 0; s < 4; ++s)
        scales[s] = static_cast<std::uint16_t>(((fit.d.bits >> (4 * s)) & 15) << 12);
      for (int s = 0; s < kSuperBlock / 16; ++s) {
        scales[s / 4] = static_cast<std::uint16_t>(scales[s / 4] | (fit.step[s] << (3 * (s % 4))));
      }
      std::memcpy(b.scales, scales, sizeof(scales));
      for (int g = 0; g < kSuperBlock / 8; ++g) {
        const IqGroup& c = fit.code[g];
        const int index = iq1_codebook().index(c.place[c.signs]);
        b.qs[g] = static_cast<std::uint8_t>(index & 0xff);
        b.qh[g / 2] =
            static_cast<std::uint8_t>(b.qh[g / 2] | (((index >> 8) | (c.signs << 3)) << (4 * (g % 2))));
      }
    }
    store_block(dst, i, b);
  }
}

}  // namespace narrow::formats

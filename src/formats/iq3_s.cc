#include "formats/iq3_s.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"

namespace narrow::formats {
namespace {

struct Codec {
  static constexpr int kBlock = 32, kSteps = 16;
  static constexpr float kUnit = 1, kBottom = 1, kTop = 15, kTypical = 6;
  static constexpr bool kSigned = false;
  static IqSums find(const IqTarget& target, float scale, IqGroup* codes) {
    return find_signed_block<false>(iq3_s_codebook(), kBlock, target, scale, codes);
  }
};

}  // namespace

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

void encode_iq3_s(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ3_S b{};
    if (!fit.zero) {
      b.d = fit.d;
      for (int g = 0; g < kSuperBlock / 8; ++g) {
        const IqGroup& c = fit.code[g];
        b.signs[g] = c.signs;
        for (int h = 0; h < 2; ++h) {
          const std::uint16_t index = iq3_s_codebook().index(c.place[h]);
          b.qs[2 * g + h] = static_cast<std::uint8_t>(index & 0xff);
          b.qh[g / 4] = static_cast<std::uint8_t>(b.qh[g / 4] | ((index >> 8) << (2 * (g % 4) + h)));
        }
      }
      for (int s = 0; s < kSuperBlock / 32; ++s) {
        b.scales[s / 2] = static_cast<std::uint8_t>(b.scales[s / 2] | (fit.step[s] << (4 * (s % 2))));
      }
    }
    store_block(dst, i, b);
  }
}

}  // namespace narrow::formats

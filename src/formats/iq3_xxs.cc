#include "formats/iq3_xxs.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"

namespace narrow::formats {
namespace {

struct Codec {
  static constexpr int kBlock = 32, kSteps = 16;
  static constexpr float kUnit = 0.25f, kBottom = 4, kTop = 62, kTypical = 25;
  static constexpr bool kSigned = false;
  static IqSums find(const IqTarget& target, float scale, IqGroup* codes) {
    return find_signed_block<true>(iq3_xxs_codebook(), kBlock, target, scale, codes);
  }
};

}  // namespace

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

void encode_iq3_xxs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ3_XXS b{};
    if (!fit.zero) {
      b.d = fit.d;
      for (int s = 0; s < kSuperBlock / 32; ++s) {
        std::uint32_t word = static_cast<std::uint32_t>(fit.step[s]) << 28;
        for (int g = 0; g < 4; ++g) {
          const IqGroup& c = fit.code[4 * s + g];
          word |= (c.signs & 0x7fu) << (7 * g);
          for (int h = 0; h < 2; ++h) {
            b.qs[8 * s + 2 * g + h] = static_cast<std::uint8_t>(iq3_xxs_codebook().index(c.place[h]));
          }
        }
        std::memcpy(b.qs + kSuperBlock / 4 + 4 * s, &word, sizeof(word));
      }
    }
    store_block(dst, i, b);
  }
}

}  // namespace narrow::formats

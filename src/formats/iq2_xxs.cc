#include "formats/iq2_xxs.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"

namespace narrow::formats {
namespace {

struct Codec {
  static constexpr int kBlock = 32, kSteps = 16;
  static constexpr float kUnit = 0.125f, kBottom = 8, kTop = 43, kTypical = 20;
  static constexpr bool kSigned = false;
  static IqSums find(const IqTarget& target, float scale, IqGroup* codes) {
    return find_signed_block<true>(iq2_xxs_codebook(), kBlock, target, scale, codes);
  }
};

}  // namespace

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

void encode_iq2_xxs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ2_XXS b{};
    if (!fit.zero) {
      b.d = fit.d;
      for (int s = 0; s < kSuperBlock / 32; ++s) {
        std::uint32_t words[2] = {0, static_cast<std::uint32_t>(fit.step[s]) << 28};
        for (int g = 0; g < 4; ++g) {
          const IqGroup& c = fit.code[4 * s + g];
          words[0] |= static_cast<std::uint32_t>(iq2_xxs_codebook().index(c.place[0])) << (8 * g);
          words[1] |= (c.signs & 0x7fu) << (7 * g);
        }
        std::memcpy(b.qs + 4 * s, words, sizeof(words));
      }
    }
    store_block(dst, i, b);
  }
}

}  // namespace narrow::formats

#include "formats/iq2_xxs.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

// The scale of 32 weights, in the top bits of their second word.
float run_scale(f16 d, std::uint32_t word) {
  return to_f32(d) * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
}

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
    for (int s = 0; s < kSuperBlock / 32; ++s) {
      std::uint32_t words[2];
      std::memcpy(words, b.qs + 4 * s, sizeof(words));
      const float scale = run_scale(b.d, words[1]);
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

void decide_iq2_xxs(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ2_XXS>(block, 0);
  std::uint32_t words[2];
  std::memcpy(words, b.qs + 4 * (u / 4), sizeof(words));
  const float scale = run_scale(b.d, words[1]);
  const int at = 8 * (u % 4), sign_at = 7 * (u % 4);
  IqChoice c{{static_cast<std::uint16_t>((words[0] >> at) & 0xffu)}, iq_signs((words[1] >> sign_at) & 0x7fu)};
  if (scale != 0) decide_iq_group<true>(iq2_xxs_codebook(), scale, x, metric, &c);
  iq_expand(scale, kIQ2XXSGrid[c.index[0]], c.signs, y);
  words[0] = (words[0] & ~(0xffu << at)) | (static_cast<std::uint32_t>(c.index[0]) << at);
  words[1] = (words[1] & ~(0x7fu << sign_at)) | ((c.signs & 0x7fu) << sign_at);
  std::memcpy(b.qs + 4 * (u / 4), words, sizeof(words));
  store_block(block, 0, b);
}

}  // namespace narrow::formats

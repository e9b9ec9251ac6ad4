#include "formats/iq3_xxs.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

// The scale of 32 weights, in the top bits of their word.
float run_scale(f16 d, std::uint32_t word) {
  return to_f32(d) * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
}

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
    for (int s = 0; s < kSuperBlock / 32; ++s) {
      std::uint32_t word;
      std::memcpy(&word, b.qs + kSuperBlock / 4 + 4 * s, sizeof(word));
      const float scale = run_scale(b.d, word);
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

void decide_iq3_xxs(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ3_XXS>(block, 0);
  std::uint8_t* tail = b.qs + kSuperBlock / 4 + 4 * (u / 4);
  std::uint32_t word;
  std::memcpy(&word, tail, sizeof(word));
  const float scale = run_scale(b.d, word);
  const int sign_at = 7 * (u % 4);
  std::uint8_t* qs = b.qs + 2 * u;
  IqChoice c{{qs[0], qs[1]}, iq_signs((word >> sign_at) & 0x7fu)};
  if (scale != 0) decide_iq_pair(iq3_xxs_codebook(), scale, x, metric, &c);
  for (int h = 0; h < 2; ++h) {
    iq_expand(scale, kIQ3XXSGrid[c.index[h]], c.signs >> (4 * h), y + 4 * h);
    qs[h] = static_cast<std::uint8_t>(c.index[h]);
  }
  word = (word & ~(0x7fu << sign_at)) | ((c.signs & 0x7fu) << sign_at);
  std::memcpy(tail, &word, sizeof(word));
  store_block(block, 0, b);
}

}  // namespace narrow::formats

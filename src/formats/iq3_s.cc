#include "formats/iq3_s.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

// The scale of weights 32 s to 32 s + 31.
float run_scale(const BlockIQ3_S& b, int s) {
  const int nibble = (b.scales[s / 2] >> (4 * (s % 2))) & 15;
  return to_f32(b.d) * static_cast<float>(2 * nibble + 1);
}

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
    for (int g = 0; g < kSuperBlock / 4; ++g) {
      const int s = g / 8;
      const float scale = run_scale(b, s);
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

void decide_iq3_s(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ3_S>(block, 0);
  const float scale = run_scale(b, u / 8);
  const int bit = u % 8, sign_at = 4 * (u % 2);
  std::uint8_t& high = b.qh[u / 8];
  std::uint8_t& signs = b.signs[u / 2];
  IqChoice c{{static_cast<std::uint16_t>(b.qs[u] | (((high >> bit) & 1) << 8))},
             static_cast<std::uint8_t>((signs >> sign_at) & 15)};
  if (scale != 0) decide_iq_quad(iq3_s_codebook(), scale, x, metric, &c);
  iq_expand(scale, kIQ3SGrid[c.index[0]], c.signs, y);
  b.qs[u] = static_cast<std::uint8_t>(c.index[0] & 0xff);
  high = static_cast<std::uint8_t>((high & ~(1 << bit)) | ((c.index[0] >> 8) << bit));
  signs = static_cast<std::uint8_t>((signs & ~(15 << sign_at)) | (c.signs << sign_at));
  store_block(block, 0, b);
}

}  // namespace narrow::formats

#include "formats/iq1_m.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

struct Scales {
  std::uint16_t words[4];
  float d;
  explicit Scales(const BlockIQ1_M& b) {
    std::memcpy(words, b.scales, sizeof(words));
    // The top nibbles of the four scale words make up the f16 scale of the super-block.
    const auto bits =
        (words[0] >> 12) | ((words[1] >> 12) << 4) | ((words[2] >> 12) << 8) | ((words[3] >> 12) << 12);
    d = to_f32(f16{static_cast<std::uint16_t>(bits)});
  }
  // Of weights 16 s to 16 s + 15.
  float of(int s) const { return d * static_cast<float>(2 * ((words[s / 4] >> (3 * (s % 4))) & 7) + 1); }
};

void expand(float scale, int index, bool negative_shift, float* dst) {
  const float delta = negative_shift ? -kIQ1Delta : kIQ1Delta;
  const auto& grid = kIQ1Grid[static_cast<std::size_t>(index)];
  for (std::size_t j = 0; j < 8; ++j) dst[j] = scale * (static_cast<float>(grid[j]) + delta);
}

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
    const Scales scales(b);
    for (int g = 0; g < kSuperBlock / 8; ++g) {
      const int nibble = b.qh[g / 2] >> (4 * (g % 2));
      expand(scales.of(g / 2), b.qs[g] | ((nibble & 7) << 8), (nibble & 8) != 0, dst + 8 * g);
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

void decide_iq1_m(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ1_M>(block, 0);
  const Scales scales(b);
  const float scale = scales.of(u / 2);
  const int at = 4 * (u % 2);
  const int nibble = b.qh[u / 2] >> at;
  IqChoice c{{static_cast<std::uint16_t>(b.qs[u] | ((nibble & 7) << 8))},
             static_cast<std::uint8_t>((nibble >> 3) & 1)};
  if (scale != 0) decide_iq1_group(scale, x, metric, true, &c);
  expand(scale, c.index[0], c.signs != 0, y);
  b.qs[u] = static_cast<std::uint8_t>(c.index[0] & 0xff);
  b.qh[u / 2] =
      static_cast<std::uint8_t>((b.qh[u / 2] & ~(15 << at)) | (((c.index[0] >> 8) | (c.signs << 3)) << at));
  store_block(block, 0, b);
}

}  // namespace narrow::formats

#include "formats/iq1_s.h"

#include "formats/iq_fit.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

float run_scale(f16 d, std::uint32_t qh) { return to_f32(d) * static_cast<float>(2 * ((qh >> 12) & 7u) + 1); }

void expand(float scale, int index, std::uint32_t qh, float* dst) {
  const float delta = (qh & 0x8000u) != 0 ? -kIQ1Delta : kIQ1Delta;
  const auto& grid = kIQ1Grid[static_cast<std::size_t>(index)];
  for (std::size_t j = 0; j < 8; ++j) dst[j] = scale * (static_cast<float>(grid[j]) + delta);
}

struct Codec {
  static constexpr int kBlock = 32, kSteps = 8;
  static constexpr float kUnit = 1, kBottom = 0.875f, kTop = 1.125f, kTypical = 0.85f;
  static constexpr bool kSigned = true;
  static IqSums find(const IqTarget& target, float scale, IqGroup* codes) {
    return find_iq1_block<4>(kBlock, target, scale, codes);
  }
};

}  // namespace

void decode_iq1_s(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ1_S>(src, i);
    for (int s = 0; s < kSuperBlock / 32; ++s) {
      const std::uint32_t qh = b.qh[s];
      const float scale = run_scale(b.d, qh);
      for (int g = 0; g < 4; ++g) {
        const int high = static_cast<int>((qh >> (3 * g)) & 7u);
        expand(scale, b.qs[4 * s + g] | (high << 8), qh, dst + 32 * s + 8 * g);
      }
    }
  }
}

void encode_iq1_s(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ1_S b{};
    if (!fit.zero) {
      b.d = fit.d;
      for (int s = 0; s < kSuperBlock / 32; ++s) {
        std::uint32_t qh = static_cast<std::uint32_t>(fit.step[s]) << 12;
        if (fit.code[4 * s].signs != 0) qh |= 0x8000u;
        for (int g = 0; g < 4; ++g) {
          const IqGroup& c = fit.code[4 * s + g];
          const std::uint32_t index = iq1_codebook().index(c.place[c.signs]);
          b.qs[4 * s + g] = static_cast<std::uint8_t>(index & 0xff);
          qh |= (index >> 8) << (3 * g);
        }
        b.qh[s] = static_cast<std::uint16_t>(qh);
      }
    }
    store_block(dst, i, b);
  }
}

void decide_iq1_s(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ1_S>(block, 0);
  std::uint32_t qh = b.qh[u / 4];
  const float scale = run_scale(b.d, qh);
  const int at = 3 * (u % 4);
  IqChoice c{{static_cast<std::uint16_t>(b.qs[u] | (((qh >> at) & 7u) << 8))},
             static_cast<std::uint8_t>(qh >> 15)};
  if (scale != 0) decide_iq1_group(scale, x, metric, false, &c);
  expand(scale, c.index[0], qh, y);
  b.qs[u] = static_cast<std::uint8_t>(c.index[0] & 0xff);
  qh = (qh & ~(7u << at)) | (static_cast<std::uint32_t>(c.index[0] >> 8) << at);
  b.qh[u / 4] = static_cast<std::uint16_t>(qh);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

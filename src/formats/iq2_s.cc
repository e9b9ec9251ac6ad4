#include "formats/iq2_s.h"

#include "formats/iq2_scales.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

using Codec = Iq2Codec<false, iq2_s_codebook>;

}  // namespace

void decode_iq2_s(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ2_S>(src, i);
    const std::uint8_t* signs = b.qs + kSuperBlock / 8;
    for (int g = 0; g < kSuperBlock / 8; ++g) {
      const float scale = iq2_group_scale(b, g);
      const std::uint32_t high = (b.qh[g / 4] >> (2 * (g % 4))) & 3u;
      iq_expand(scale, kIQ2SGrid[b.qs[g] | (high << 8)], signs[g], dst + 8 * g);
    }
  }
}

void encode_iq2_s(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ2_S b{};
    if (!fit.zero) {
      b.d = fit.d;
      for (int g = 0; g < kSuperBlock / 8; ++g) {
        const IqGroup& c = fit.code[g];
        const std::uint16_t index = iq2_s_codebook().index(c.place[0]);
        b.qs[g] = static_cast<std::uint8_t>(index & 0xff);
        b.qs[kSuperBlock / 8 + g] = c.signs;
        b.qh[g / 4] = static_cast<std::uint8_t>(b.qh[g / 4] | ((index >> 8) << (2 * (g % 4))));
      }
      pack_iq2_steps(fit.step, b);
    }
    store_block(dst, i, b);
  }
}

void decide_iq2_s(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ2_S>(block, 0);
  const float scale = iq2_group_scale(b, u);
  const int shift = 2 * (u % 4);
  std::uint8_t& signs = b.qs[kSuperBlock / 8 + u];
  IqChoice c{{static_cast<std::uint16_t>(b.qs[u] | (((b.qh[u / 4] >> shift) & 3) << 8))}, signs};
  if (scale != 0) decide_iq_group<false>(iq2_s_codebook(), scale, x, metric, &c);
  iq_expand(scale, kIQ2SGrid[c.index[0]], c.signs, y);
  b.qs[u] = static_cast<std::uint8_t>(c.index[0] & 0xff);
  b.qh[u / 4] = static_cast<std::uint8_t>((b.qh[u / 4] & ~(3 << shift)) | ((c.index[0] >> 8) << shift));
  signs = c.signs;
  store_block(block, 0, b);
}

}  // namespace narrow::formats

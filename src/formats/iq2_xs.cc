#include "formats/iq2_xs.h"

#include "formats/iq2_scales.h"
#include "formats/iq_grids.h"
#include "formats/iq_unit.h"

namespace narrow::formats {
namespace {

using Codec = Iq2Codec<true, iq2_xs_codebook>;

}  // namespace

void decode_iq2_xs(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockIQ2_XS>(src, i);
    for (int g = 0; g < kSuperBlock / 8; ++g) {
      const float scale = iq2_group_scale(b, g);
      iq_expand(scale, kIQ2XSGrid[b.qs[g] & 0x1ffu], iq_signs(b.qs[g] >> 9), dst + 8 * g);
    }
  }
}

void encode_iq2_xs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    const IqSuperBlock<Codec> fit(src + at, options.importance ? options.importance + at : nullptr,
                                  options.search);
    BlockIQ2_XS b{};
    if (!fit.zero) {
      b.d = fit.d;
      for (int g = 0; g < kSuperBlock / 8; ++g) {
        const IqGroup& c = fit.code[g];
        b.qs[g] = static_cast<std::uint16_t>(iq2_xs_codebook().index(c.place[0]) | ((c.signs & 0x7f) << 9));
      }
      pack_iq2_steps(fit.step, b);
    }
    store_block(dst, i, b);
  }
}

void decide_iq2_xs(std::byte* block, int u, const float* x, const float* metric, float* y) {
  auto b = load_block<BlockIQ2_XS>(block, 0);
  const float scale = iq2_group_scale(b, u);
  IqChoice c{{static_cast<std::uint16_t>(b.qs[u] & 0x1ffu)}, iq_signs(b.qs[u] >> 9)};
  if (scale != 0) decide_iq_group<true>(iq2_xs_codebook(), scale, x, metric, &c);
  iq_expand(scale, kIQ2XSGrid[c.index[0]], c.signs, y);
  b.qs[u] = static_cast<std::uint16_t>(c.index[0] | ((c.signs & 0x7f) << 9));
  store_block(block, 0, b);
}

}  // namespace narrow::formats

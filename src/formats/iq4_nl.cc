#include "formats/iq4_nl.h"

#include "formats/codebook_fit.h"
#include "formats/fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockIQ4_NL& b) {
  for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<std::uint8_t>(q[j] | (q[j + 16] << 4));
}

}  // namespace

void decode_iq4_nl(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / 32; ++i, dst += 32) {
    const auto b = load_block<BlockIQ4_NL>(src, i);
    const float d = to_f32(b.d);
    for (int j = 0; j < 16; ++j) {
      dst[j] = d * static_cast<float>(kNonLinearLevels[b.qs[j] & 15]);
      dst[j + 16] = d * static_cast<float>(kNonLinearLevels[b.qs[j] >> 4]);
    }
  }
}

void encode_iq4_nl(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    float x[32], w[32];
    const Normalizer unit = normalize(src + 32 * i, 32, x);
    fill_weights(WeightRule::kMagnitude, x, options.importance ? options.importance + 32 * i : nullptr, 32,
                 w);
    BlockIQ4_NL b;
    b.d = unit.store(fit_level_scale(x, w, options.search));
    const float d = unit.load(b.d);
    std::uint8_t codes[32];
    nearest_codes(x, d != 0 ? 1.0f / d : 0.0f, codes);
    pack(codes, b);
    store_block(dst, i, b);
  }
}

void write_iq4_nl(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockIQ4_NL>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

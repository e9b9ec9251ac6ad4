#include "formats/tq2_0.h"

#include "formats/ternary_fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockTQ2_0& b) {
  for (int h = 0; h < 2; ++h) {
    for (int j = 0; j < 32; ++j) {
      int byte = 0;
      for (int s = 0; s < 4; ++s) byte |= q[128 * h + 32 * s + j] << (2 * s);
      b.qs[32 * h + j] = static_cast<std::uint8_t>(byte);
    }
  }
}

}  // namespace

void decode_tq2_0(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockTQ2_0>(src, i);
    const float d = to_f32(b.d);
    for (int h = 0; h < 2; ++h) {
      for (int s = 0; s < 4; ++s) {
        for (int j = 0; j < 32; ++j) {
          dst[128 * h + 32 * s + j] = d * static_cast<float>(((b.qs[32 * h + j] >> (2 * s)) & 3) - 1);
        }
      }
    }
  }
}

void encode_tq2_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    std::uint8_t t[kSuperBlock];
    BlockTQ2_0 b{};
    b.d = fit_ternary(src + at, options.importance ? options.importance + at : nullptr, options.search, t);
    pack(t, b);
    store_block(dst, i, b);
  }
}

void write_tq2_0(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockTQ2_0>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

#include "formats/q4_1.h"

#include "formats/fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ4_1& b) {
  for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<std::uint8_t>(q[j] | (q[j + 16] << 4));
}

}  // namespace

void decode_q4_1(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto b = load_block<BlockQ4_1>(src, i);
    const float d = to_f32(b.d), m = to_f32(b.m);
    float* y = dst + 32 * i;
    for (int j = 0; j < 16; ++j) {
      y[j] = d * static_cast<float>(b.qs[j] & 15) + m;
      y[j + 16] = d * static_cast<float>(b.qs[j] >> 4) + m;
    }
  }
}

void encode_q4_1(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const float* importance = options.importance ? options.importance + 32 * i : nullptr;
    const AffineBlock fit =
        encode_affine_block(src + 32 * i, importance, 15, WeightRule::kMagnitude, options.search);
    BlockQ4_1 b;
    b.d = fit.d;
    b.m = fit.m;
    pack(fit.q, b);
    store_block(dst, i, b);
  }
}

void write_q4_1(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ4_1>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

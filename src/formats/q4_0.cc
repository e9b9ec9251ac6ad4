#include "formats/q4_0.h"

#include "formats/fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ4_0& b) {
  for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<std::uint8_t>(q[j] | (q[j + 16] << 4));
}

}  // namespace

void decode_q4_0(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto b = load_block<BlockQ4_0>(src, i);
    const float d = to_f32(b.d);
    float* y = dst + 32 * i;
    for (int j = 0; j < 16; ++j) {
      y[j] = d * static_cast<float>((b.qs[j] & 15) - 8);
      y[j + 16] = d * static_cast<float>((b.qs[j] >> 4) - 8);
    }
  }
}

void encode_q4_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const float* importance = options.importance ? options.importance + 32 * i : nullptr;
    const SymmetricBlock fit =
        encode_symmetric_block(src + 32 * i, importance, -8, 7, WeightRule::kMagnitude, options.search);
    BlockQ4_0 b;
    b.d = fit.d;
    std::uint8_t q[32];
    for (int j = 0; j < 32; ++j) q[j] = static_cast<std::uint8_t>(fit.q[j] + 8);
    pack(q, b);
    store_block(dst, i, b);
  }
}

void write_q4_0(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ4_0>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

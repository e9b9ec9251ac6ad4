#include "formats/q8_0.h"

#include "formats/fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ8_0& b) {
  for (int j = 0; j < 32; ++j) b.qs[j] = static_cast<std::int8_t>(q[j] - 127);
}

}  // namespace

void decode_q8_0(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto b = load_block<BlockQ8_0>(src, i);
    const float d = to_f32(b.d);
    for (int j = 0; j < 32; ++j) dst[32 * i + j] = d * static_cast<float>(b.qs[j]);
  }
}

void encode_q8_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const float* importance = options.importance ? options.importance + 32 * i : nullptr;
    // -128 stays unused: integer kernels elsewhere negate codes.
    const SymmetricBlock fit =
        encode_symmetric_block(src + 32 * i, importance, -127, 127, WeightRule::kMagnitude, options.search);
    BlockQ8_0 b;
    b.d = fit.d;
    std::uint8_t q[32];
    for (int j = 0; j < 32; ++j) q[j] = static_cast<std::uint8_t>(fit.q[j] + 127);
    pack(q, b);
    store_block(dst, i, b);
  }
}

void write_q8_0(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ8_0>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

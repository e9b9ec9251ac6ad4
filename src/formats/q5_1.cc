#include "formats/q5_1.h"

#include "formats/fit.h"
#include "formats/five_bits.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ5_1& b) { pack_five_bits(q, b.qh, b.qs); }

}  // namespace

void decode_q5_1(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const auto b = load_block<BlockQ5_1>(src, i);
    const float d = to_f32(b.d), m = to_f32(b.m);
    std::uint8_t q[32];
    unpack_five_bits(b.qh, b.qs, q);
    for (int j = 0; j < 32; ++j) dst[32 * i + j] = d * static_cast<float>(q[j]) + m;
  }
}

void encode_q5_1(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const float* importance = options.importance ? options.importance + 32 * i : nullptr;
    const AffineBlock fit =
        encode_affine_block(src + 32 * i, importance, 31, WeightRule::kMagnitude, options.search);
    BlockQ5_1 b;
    b.d = fit.d;
    b.m = fit.m;
    pack(fit.q, b);
    store_block(dst, i, b);
  }
}

void write_q5_1(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ5_1>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

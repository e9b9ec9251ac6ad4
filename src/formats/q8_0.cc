#include "formats/q8_0.h"

#include <cstring>

#include "formats/fit.h"

namespace narrow::formats {

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
    std::memcpy(b.qs, fit.q, sizeof(b.qs));
    store_block(dst, i, b);
  }
}

}  // namespace narrow::formats

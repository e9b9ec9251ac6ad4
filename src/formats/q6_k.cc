#include "formats/q6_k.h"

#include <cstring>

#include "formats/super_fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ6_K& b) {
  std::memset(b.ql, 0, sizeof(b.ql));
  std::memset(b.qh, 0, sizeof(b.qh));
  for (int g = 0; g < 16; ++g) {
    std::uint8_t* ql = b.ql + 64 * (g / 8) + 16 * (g % 4);
    std::uint8_t* qh = b.qh + 32 * (g / 8) + 16 * (g % 2);
    const int low_shift = 4 * (g / 4 % 2), high_shift = 2 * (g / 2 % 4);
    for (int j = 0; j < 16; ++j) {
      const int code = q[16 * g + j];
      ql[j] = static_cast<std::uint8_t>(ql[j] | ((code & 15) << low_shift));
      qh[j] = static_cast<std::uint8_t>(qh[j] | ((code >> 4) << high_shift));
    }
  }
}

}  // namespace

void decode_q6_k(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const auto b = load_block<BlockQ6_K>(src, i);
    const float d = to_f32(b.d);
    float* y = dst + kSuperBlock * i;
    for (int g = 0; g < 16; ++g) {  // g / 8: half; within it quarters of 32, blocks of 16
      const float scale = d * static_cast<float>(b.scales[g]);
      const std::uint8_t* ql = b.ql + 64 * (g / 8) + 16 * (g % 4);
      const std::uint8_t* qh = b.qh + 32 * (g / 8) + 16 * (g % 2);
      const int low_shift = 4 * (g / 4 % 2), high_shift = 2 * (g / 2 % 4);
      for (int j = 0; j < 16; ++j) {
        const int q = ((ql[j] >> low_shift) & 15) | (((qh[j] >> high_shift) & 3) << 4);
        y[16 * g + j] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

void encode_q6_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  constexpr SymmetricSuperSpec kSpec{-32, 31, -128, 127, WeightRule::kMagnitude};
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const float* importance = options.importance ? options.importance + kSuperBlock * i : nullptr;
    SymmetricSuperBlock fit;
    encode_symmetric_super_block(kSpec, src + kSuperBlock * i, importance, options.search, &fit);
    BlockQ6_K b{};
    b.d = fit.d;
    std::memcpy(b.scales, fit.sc, sizeof(b.scales));
    std::uint8_t q[kSuperBlock];
    for (int j = 0; j < kSuperBlock; ++j) q[j] = static_cast<std::uint8_t>(fit.q[j] + 32);
    pack(q, b);
    store_block(dst, i, b);
  }
}

void write_q6_k(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ6_K>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

SubScales read_scales_q6_k(const std::byte* block) {
  const auto b = load_block<BlockQ6_K>(block, 0);
  SubScales s{b.d, {}};
  for (int g = 0; g < 16; ++g) s.sc[g] = b.scales[g];
  return s;
}

void write_scales_q6_k(std::byte* block, const SubScales& scales) {
  auto b = load_block<BlockQ6_K>(block, 0);
  b.d = scales.d;
  for (int g = 0; g < 16; ++g) b.scales[g] = static_cast<std::int8_t>(scales.sc[g]);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

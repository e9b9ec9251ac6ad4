#include "formats/q2_k.h"

#include <cstring>

#include "formats/super_fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ2_K& b) {
  std::memset(b.qs, 0, sizeof(b.qs));
  for (int g = 0; g < 16; ++g) {
    std::uint8_t* qs = b.qs + 32 * (g / 8) + 16 * (g % 2);
    const int shift = 2 * (g / 2 % 4);
    for (int j = 0; j < 16; ++j) qs[j] = static_cast<std::uint8_t>(qs[j] | (q[16 * g + j] << shift));
  }
}

}  // namespace

void decode_q2_k(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const auto b = load_block<BlockQ2_K>(src, i);
    const float d = to_f32(b.d), dmin = to_f32(b.dmin);
    float* y = dst + kSuperBlock * i;
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(b.scales[g] & 15);
      const float min = dmin * static_cast<float>(b.scales[g] >> 4);
      const std::uint8_t* qs = b.qs + 32 * (g / 8) + 16 * (g % 2);
      const int shift = 2 * (g / 2 % 4);
      for (int j = 0; j < 16; ++j) y[16 * g + j] = scale * static_cast<float>((qs[j] >> shift) & 3) - min;
    }
  }
}

void encode_q2_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  constexpr AffineSuperSpec kSpec{3, 15, WeightRule::kMagnitude};
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const float* importance = options.importance ? options.importance + kSuperBlock * i : nullptr;
    AffineSuperBlock fit;
    encode_affine_super_block<16>(kSpec, src + kSuperBlock * i, importance, options.search, &fit);
    BlockQ2_K b{};
    b.d = fit.d;
    b.dmin = fit.dmin;
    for (int g = 0; g < 16; ++g) b.scales[g] = static_cast<std::uint8_t>(fit.sc[g] | (fit.mn[g] << 4));
    pack(fit.q, b);
    store_block(dst, i, b);
  }
}

void write_q2_k(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ2_K>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

SubScales read_scales_q2_k(const std::byte* block) {
  const auto b = load_block<BlockQ2_K>(block, 0);
  SubScales s{b.d, b.dmin};
  for (int g = 0; g < 16; ++g) {
    s.sc[g] = b.scales[g] & 15;
    s.mn[g] = b.scales[g] >> 4;
  }
  return s;
}

void write_scales_q2_k(std::byte* block, const SubScales& scales) {
  auto b = load_block<BlockQ2_K>(block, 0);
  b.d = scales.d;
  b.dmin = scales.dmin;
  for (int g = 0; g < 16; ++g) b.scales[g] = static_cast<std::uint8_t>(scales.sc[g] | (scales.mn[g] << 4));
  store_block(block, 0, b);
}

}  // namespace narrow::formats

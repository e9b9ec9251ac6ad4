#include "formats/q3_k.h"

#include <cstring>

#include "formats/super_fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ3_K& b) {
  std::memset(b.qs, 0, sizeof(b.qs));
  std::memset(b.hmask, 0, sizeof(b.hmask));
  for (int g = 0; g < 16; ++g) {
    std::uint8_t* qs = b.qs + 32 * (g / 8) + 16 * (g % 2);
    std::uint8_t* hmask = b.hmask + 16 * (g % 2);
    const int shift = 2 * (g / 2 % 4);
    for (int j = 0; j < 16; ++j) {
      const int code = q[16 * g + j];
      qs[j] = static_cast<std::uint8_t>(qs[j] | ((code & 3) << shift));
      hmask[j] = static_cast<std::uint8_t>(hmask[j] | ((code >> 2) << (g / 2)));
    }
  }
}

int unpack_scale(const BlockQ3_K& b, int g) {
  const int low = (b.scales[g % 8] >> (4 * (g / 8))) & 15;
  const int high = (b.scales[8 + g % 4] >> (2 * (g / 4))) & 3;
  return (low | (high << 4)) - 32;
}

// sc: 16 whole numbers in [-32, 31].
template <class Int>
void pack_scales(const Int* scales, BlockQ3_K& b) {
  std::memset(b.scales, 0, sizeof(b.scales));
  for (int g = 0; g < 16; ++g) {
    const int sc = scales[g] + 32;
    b.scales[g % 8] = static_cast<std::uint8_t>(b.scales[g % 8] | ((sc & 15) << (4 * (g / 8))));
    b.scales[8 + g % 4] = static_cast<std::uint8_t>(b.scales[8 + g % 4] | ((sc >> 4) << (2 * (g / 4))));
  }
}

}  // namespace

void decode_q3_k(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const auto b = load_block<BlockQ3_K>(src, i);
    const float d = to_f32(b.d);
    float* y = dst + kSuperBlock * i;
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(unpack_scale(b, g));
      const std::uint8_t* qs = b.qs + 32 * (g / 8) + 16 * (g % 2);
      const std::uint8_t* hmask = b.hmask + 16 * (g % 2);
      const int shift = 2 * (g / 2 % 4);
      for (int j = 0; j < 16; ++j) {
        const int q = ((qs[j] >> shift) & 3) | (((hmask[j] >> (g / 2)) & 1) << 2);
        y[16 * g + j] = scale * static_cast<float>(q - 4);
      }
    }
  }
}

void encode_q3_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  constexpr SymmetricSuperSpec kSpec{-4, 3, -32, 31, WeightRule::kMagnitude};
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const float* importance = options.importance ? options.importance + kSuperBlock * i : nullptr;
    SymmetricSuperBlock fit;
    encode_symmetric_super_block(kSpec, src + kSuperBlock * i, importance, options.search, &fit);
    BlockQ3_K b{};
    b.d = fit.d;
    pack_scales(fit.sc, b);
    std::uint8_t q[kSuperBlock];
    for (int j = 0; j < kSuperBlock; ++j) q[j] = static_cast<std::uint8_t>(fit.q[j] + 4);
    pack(q, b);
    store_block(dst, i, b);
  }
}

void write_q3_k(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ3_K>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

SubScales read_scales_q3_k(const std::byte* block) {
  const auto b = load_block<BlockQ3_K>(block, 0);
  SubScales s{b.d, {}};
  for (int g = 0; g < 16; ++g) s.sc[g] = unpack_scale(b, g);
  return s;
}

void write_scales_q3_k(std::byte* block, const SubScales& scales) {
  auto b = load_block<BlockQ3_K>(block, 0);
  b.d = scales.d;
  pack_scales(scales.sc, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

#include "formats/q4_k.h"

#include "formats/scales_6bit.h"
#include "formats/super_fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ4_K& b) {
  for (int g = 0; g < 8; g += 2) {
    for (int j = 0; j < 32; ++j) {
      b.qs[16 * g + j] = static_cast<std::uint8_t>(q[32 * g + j] | (q[32 * g + 32 + j] << 4));
    }
  }
}

}  // namespace

void decode_q4_k(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const auto b = load_block<BlockQ4_K>(src, i);
    const float d = to_f32(b.d), dmin = to_f32(b.dmin);
    std::uint8_t sc[8], mn[8];
    unpack_scales_6bit(b.scales, sc, mn);
    float* y = dst + kSuperBlock * i;
    for (int g = 0; g < 8; ++g) {
      const float scale = d * static_cast<float>(sc[g]);
      const float min = dmin * static_cast<float>(mn[g]);
      const std::uint8_t* qs = b.qs + 32 * (g / 2);
      const int shift = 4 * (g % 2);
      for (int j = 0; j < 32; ++j) y[32 * g + j] = scale * static_cast<float>((qs[j] >> shift) & 15) - min;
    }
  }
}

void encode_q4_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  constexpr AffineSuperSpec kSpec{15, 63, WeightRule::kMagnitude};
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const float* importance = options.importance ? options.importance + kSuperBlock * i : nullptr;
    AffineSuperBlock fit;
    encode_affine_super_block<32>(kSpec, src + kSuperBlock * i, importance, options.search, &fit);
    BlockQ4_K b{};
    b.d = fit.d;
    b.dmin = fit.dmin;
    pack_scales_6bit(fit.sc, fit.mn, b.scales);
    pack(fit.q, b);
    store_block(dst, i, b);
  }
}

void write_q4_k(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ4_K>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

SubScales read_scales_q4_k(const std::byte* block) { return read_scales_6bit<BlockQ4_K>(block); }

void write_scales_q4_k(std::byte* block, const SubScales& scales) {
  write_scales_6bit<BlockQ4_K>(block, scales);
}

}  // namespace narrow::formats

#include "formats/q5_k.h"

#include "formats/scales_6bit.h"
#include "formats/super_fit.h"

namespace narrow::formats {
namespace {

void pack(const std::uint8_t* q, BlockQ5_K& b) {
  std::memset(b.qs, 0, sizeof(b.qs));
  std::memset(b.qh, 0, sizeof(b.qh));
  for (int g = 0; g < 8; ++g) {
    std::uint8_t* qs = b.qs + 32 * (g / 2);
    const int shift = 4 * (g % 2);
    for (int j = 0; j < 32; ++j) {
      const int code = q[32 * g + j];
      qs[j] = static_cast<std::uint8_t>(qs[j] | ((code & 15) << shift));
      b.qh[j] = static_cast<std::uint8_t>(b.qh[j] | ((code >> 4) << g));
    }
  }
}

}  // namespace

void decode_q5_k(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const auto b = load_block<BlockQ5_K>(src, i);
    const float d = to_f32(b.d), dmin = to_f32(b.dmin);
    std::uint8_t sc[8], mn[8];
    unpack_scales_6bit(b.scales, sc, mn);
    float* y = dst + kSuperBlock * i;
    for (int g = 0; g < 8; ++g) {
      const float scale = d * static_cast<float>(sc[g]);
      const float min = dmin * static_cast<float>(mn[g]);
      const std::uint8_t* qs = b.qs + 32 * (g / 2);
      const int shift = 4 * (g % 2);
      for (int j = 0; j < 32; ++j) {
        const int q = ((qs[j] >> shift) & 15) | (((b.qh[j] >> g) & 1) << 4);
        y[32 * g + j] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

void encode_q5_k(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  constexpr AffineSuperSpec kSpec{31, 63, WeightRule::kMagnitude};
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const float* importance = options.importance ? options.importance + kSuperBlock * i : nullptr;
    AffineSuperBlock fit;
    encode_affine_super_block<32>(kSpec, src + kSuperBlock * i, importance, options.search, &fit);
    BlockQ5_K b{};
    b.d = fit.d;
    b.dmin = fit.dmin;
    pack_scales_6bit(fit.sc, fit.mn, b.scales);
    pack(fit.q, b);
    store_block(dst, i, b);
  }
}

void write_q5_k(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockQ5_K>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

SubScales read_scales_q5_k(const std::byte* block) { return read_scales_6bit<BlockQ5_K>(block); }

void write_scales_q5_k(std::byte* block, const SubScales& scales) {
  write_scales_6bit<BlockQ5_K>(block, scales);
}

}  // namespace narrow::formats

#include "formats/mxfp4.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "formats/fit.h"

namespace narrow::formats {
namespace {

// E2M1 values, doubled so that they are whole; the scale is halved to match.
constexpr std::int8_t kLevels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Exponents that encode uses: the reciprocal of their scale is finite, and they are no NaN.
constexpr int kMinExponent = 2, kMaxExponent = 254;

// 2^(e - 128), subnormal for e < 2. The specification reserves e = 255 for NaN; ggml, whose files these are,
// reads it as one more exponent.
float half_scale(std::uint8_t e) {
  const std::uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<std::uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

// The code of the nearest level; ties go to the smaller magnitude.
std::uint8_t nearest_code(float x, float inverse_half_scale) {
  constexpr float kBetween[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f};
  const float a = std::fabs(x) * inverse_half_scale;
  int c = 0;
  for (const float mid : kBetween) c += a > mid ? 1 : 0;
  return static_cast<std::uint8_t>(c != 0 && x < 0 ? c + 8 : c);
}

float squared_error(const float* x, const float* w, std::uint8_t e) {
  const float d = half_scale(e);
  const float inverse = 1.0f / d;
  float sum = 0;
  for (int j = 0; j < 32; ++j) {
    const float diff = x[j] - d * static_cast<float>(kLevels[nearest_code(x[j], inverse)]);
    sum += w[j] * diff * diff;
  }
  return sum;
}

// The specification's rule: the exponent that puts the largest magnitude in [4, 8), where 6 is the last
// level.
int absmax_exponent(float amax) { return std::clamp(std::ilogb(amax) - 2 + 127, kMinExponent, kMaxExponent); }

void pack(const std::uint8_t* q, BlockMXFP4& b) {
  for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<std::uint8_t>(q[j] | (q[j + 16] << 4));
}

}  // namespace

void decode_mxfp4(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / 32; ++i, dst += 32) {
    const auto b = load_block<BlockMXFP4>(src, i);
    const float d = half_scale(b.e);
    for (int j = 0; j < 16; ++j) {
      dst[j] = d * static_cast<float>(kLevels[b.qs[j] & 15]);
      dst[j + 16] = d * static_cast<float>(kLevels[b.qs[j] >> 4]);
    }
  }
}

void encode_mxfp4(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / 32; ++i) {
    const float* x = src + 32 * i;
    float w[32];
    fill_weights(WeightRule::kUniform, x, options.importance ? options.importance + 32 * i : nullptr, 32, w);
    float amax = 0;
    for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
    BlockMXFP4 b{};
    if (amax == 0) {
      store_block(dst, i, b);
      continue;
    }
    const int base = absmax_exponent(amax);
    b.e = static_cast<std::uint8_t>(base);
    if (options.search) {
      // One up never clips; one down gives small weights a finer grid and clips the peak.
      float best = squared_error(x, w, b.e);
      for (const int e : {base - 1, base + 1}) {
        if (e < kMinExponent || e > kMaxExponent) continue;
        const float error = squared_error(x, w, static_cast<std::uint8_t>(e));
        if (error < best) {
          best = error;
          b.e = static_cast<std::uint8_t>(e);
        }
      }
    }
    const float inverse = 1.0f / half_scale(b.e);
    std::uint8_t q[32];
    for (int j = 0; j < 32; ++j) q[j] = nearest_code(x[j], inverse);
    pack(q, b);
    store_block(dst, i, b);
  }
}

void write_mxfp4(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockMXFP4>(block, 0);
  std::uint8_t q[32];  // codes 0 .. 6 stand for the negative levels, which are stored from 15 down
  for (int j = 0; j < 32; ++j) q[j] = static_cast<std::uint8_t>(codes[j] < 7 ? 15 - codes[j] : codes[j] - 7);
  pack(q, b);
  store_block(block, 0, b);
}

float read_scale_mxfp4(const std::byte* block) { return half_scale(load_block<BlockMXFP4>(block, 0).e); }

void write_scale_mxfp4(std::byte* block, float scale) {
  auto b = load_block<BlockMXFP4>(block, 0);
  int e = 0;
  while (e < kMaxExponent && scale > 0.5f * (half_scale(static_cast<std::uint8_t>(e)) +
                                             half_scale(static_cast<std::uint8_t>(e + 1)))) {
    ++e;
  }
  b.e = static_cast<std::uint8_t>(e);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

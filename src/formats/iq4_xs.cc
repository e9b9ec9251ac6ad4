#include "formats/iq4_xs.h"

#include <algorithm>
#include <cmath>

#include "formats/codebook_fit.h"
#include "formats/fit.h"

namespace narrow::formats {
namespace {

constexpr int kSubBlocks = kSuperBlock / 32;
constexpr int kMinStep = -32, kMaxStep = 31;  // 6-bit signed multiples of the super scale

struct Scales {
  f16 d;
  int step[kSubBlocks] = {};
  float error = 0;
};

int nearest_step(float ratio) {
  return static_cast<int>(
      std::lrint(std::clamp(ratio, static_cast<float>(kMinStep), static_cast<float>(kMaxStep))));
}

// For a super scale: the best multiple per sub-block among the nearest and its two neighbours.
Scales choose_steps(const Normalizer& unit, const float* x, const float* w, const float* wanted,
                    float super_scale, bool neighbours) {
  Scales s;
  s.d = unit.store(super_scale);
  const float d = unit.load(s.d);
  for (int b = 0; b < kSubBlocks; ++b) {
    const float* xb = x + 32 * b;
    const float* wb = w + 32 * b;
    const int centre = d != 0 ? nearest_step(wanted[b] / d) : 0;
    s.step[b] = centre;
    float best = level_error(xb, wb, d * static_cast<float>(centre));
    if (neighbours && d != 0) {
      for (const int step : {centre - 1, centre + 1}) {
        if (step < kMinStep || step > kMaxStep) continue;
        const float e = level_error(xb, wb, d * static_cast<float>(step));
        if (e < best) {
          best = e;
          s.step[b] = step;
        }
      }
    }
    s.error += best;
  }
  return s;
}

// The super scale that is least-squares for given multiples, levels being reassigned at the old one.
float refit_super_scale(const Normalizer& unit, const float* x, const float* w, const Scales& s) {
  const float d = unit.load(s.d);
  double qx = 0, qq = 0;
  for (int b = 0; b < kSubBlocks; ++b) {
    const float step = static_cast<float>(s.step[b]);
    if (step == 0 || d == 0) continue;
    const LevelSums sums = project(x + 32 * b, w + 32 * b, 1.0f / (d * step));
    qx += static_cast<double>(step) * sums.qx;
    qq += static_cast<double>(step) * step * sums.qq;
  }
  return qq > 0 ? static_cast<float>(qx / qq) : d;
}

Scales fit_scales(const Normalizer& unit, const float* x, const float* w, bool search) {
  float wanted[kSubBlocks];
  float peak = 0;  // the sub-block scale of greatest magnitude
  for (int b = 0; b < kSubBlocks; ++b) {
    wanted[b] = fit_level_scale(x + 32 * b, w + 32 * b, search);
    if (std::fabs(wanted[b]) > std::fabs(peak)) peak = wanted[b];
  }
  Scales best = choose_steps(unit, x, w, wanted, peak / kMinStep, false);
  if (!search || peak == 0) return best;
  // Other multiples for the greatest scale shift the rounding of all the others.
  constexpr int kTries[] = {-32, -31, -30, -29, -28, -27, -26, -25, -24, -23, -22};
  for (const int t : kTries) {
    const Scales s = choose_steps(unit, x, w, wanted, peak / static_cast<float>(t), false);
    if (s.error < best.error) best = s;
  }
  for (int round = 0; round < 3; ++round) {
    const Scales s = choose_steps(unit, x, w, wanted, refit_super_scale(unit, x, w, best), true);
    if (s.error >= best.error) break;
    best = s;
  }
  return best;
}

void pack(const std::uint8_t* q, BlockIQ4_XS& b) {
  for (int n = 0; n < kSubBlocks; ++n, q += 32) {
    for (int j = 0; j < 16; ++j) b.qs[16 * n + j] = static_cast<std::uint8_t>(q[j] | (q[j + 16] << 4));
  }
}

int unpack_step(const BlockIQ4_XS& b, int n) {
  const int low = (b.scales_l[n / 2] >> (4 * (n % 2))) & 15;
  const int high = (b.scales_h >> (2 * n)) & 3;
  return (low | (high << 4)) + kMinStep;
}

void pack_steps(const int* steps, BlockIQ4_XS& b) {
  b.scales_h = 0;
  for (int n = 0; n < kSubBlocks; n += 2) {
    const int even = steps[n] - kMinStep, odd = steps[n + 1] - kMinStep;
    b.scales_l[n / 2] = static_cast<std::uint8_t>((even & 15) | ((odd & 15) << 4));
    b.scales_h =
        static_cast<std::uint16_t>(b.scales_h | ((even >> 4) << (2 * n)) | ((odd >> 4) << (2 * n + 2)));
  }
}

}  // namespace

void decode_iq4_xs(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const auto b = load_block<BlockIQ4_XS>(src, i);
    const float d = to_f32(b.d);
    const std::uint8_t* qs = b.qs;
    for (int s = 0; s < kSubBlocks; ++s, qs += 16, dst += 32) {
      const float scale = d * static_cast<float>(unpack_step(b, s));
      for (int j = 0; j < 16; ++j) {
        dst[j] = scale * static_cast<float>(kNonLinearLevels[qs[j] & 15]);
        dst[j + 16] = scale * static_cast<float>(kNonLinearLevels[qs[j] >> 4]);
      }
    }
  }
}

void encode_iq4_xs(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    float x[kSuperBlock], w[kSuperBlock];
    const std::int64_t at = i * kSuperBlock;
    const Normalizer unit = normalize(src + at, kSuperBlock, x);
    fill_weights(WeightRule::kMagnitude, x, options.importance ? options.importance + at : nullptr,
                 kSuperBlock, w);
    const Scales s = fit_scales(unit, x, w, options.search);
    BlockIQ4_XS b{};
    b.d = s.d;
    const float d = unit.load(s.d);
    std::uint8_t codes[kSuperBlock];
    pack_steps(s.step, b);
    for (int n = 0; n < kSubBlocks; ++n) {
      const float scale = d * static_cast<float>(s.step[n]);
      nearest_codes(x + 32 * n, scale != 0 ? 1.0f / scale : 0.0f, codes + 32 * n);
    }
    pack(codes, b);
    store_block(dst, i, b);
  }
}

void write_iq4_xs(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockIQ4_XS>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

SubScales read_scales_iq4_xs(const std::byte* block) {
  const auto b = load_block<BlockIQ4_XS>(block, 0);
  SubScales s{b.d, {}};
  for (int n = 0; n < kSubBlocks; ++n) s.sc[n] = unpack_step(b, n);
  return s;
}

void write_scales_iq4_xs(std::byte* block, const SubScales& scales) {
  auto b = load_block<BlockIQ4_XS>(block, 0);
  b.d = scales.d;
  pack_steps(scales.sc, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats

#include "formats/codebook_fit.h"

#include <algorithm>
#include <cmath>

namespace narrow::formats {
namespace {

constexpr int kLanes = 8;
// Of blocks whose greatest weight is near 1: nothing below it reaches the smallest stored scale.
constexpr float kVanishes = 1e-20f;

constexpr std::array<float, 15> make_midpoints() {
  std::array<float, 15> m{};
  for (std::size_t i = 0; i < m.size(); ++i) {
    m[i] = 0.5f * static_cast<float>(kNonLinearLevels[i] + kNonLinearLevels[i + 1]);
  }
  return m;
}
constexpr std::array<float, 15> make_steps() {
  std::array<float, 15> s{};
  for (std::size_t i = 0; i < s.size(); ++i) {
    s[i] = static_cast<float>(kNonLinearLevels[i + 1] - kNonLinearLevels[i]);
  }
  return s;
}
constexpr std::array<float, 15> kMidpoints = make_midpoints();
constexpr std::array<float, 15> kSteps = make_steps();

// Levels as a sum of the steps passed: no table look-up, so the compiler vectorizes it.
inline void nearest_levels(const float* x, float inverse_scale, float* level) {
  for (int j = 0; j < kCodebookBlock; ++j) {
    const float a = x[j] * inverse_scale;
    float v = kNonLinearLevels[0];
    for (std::size_t m = 0; m < kMidpoints.size(); ++m) v += a > kMidpoints[m] ? kSteps[m] : 0.0f;
    level[j] = v;
  }
}

// Lane-wise accumulators fix the order of the additions whatever the compiler vectorizes.
inline float sum_lanes(const float (&acc)[kLanes]) {
  return ((acc[0] + acc[4]) + (acc[1] + acc[5])) + ((acc[2] + acc[6]) + (acc[3] + acc[7]));
}

}  // namespace

void nearest_codes(const float* x, float inverse_scale, std::uint8_t* codes) {
  for (int j = 0; j < kCodebookBlock; ++j) {
    const float a = x[j] * inverse_scale;
    std::int32_t c = 0;
    for (const float mid : kMidpoints) c += a > mid ? 1 : 0;
    codes[j] = static_cast<std::uint8_t>(c);
  }
}

LevelSums project(const float* x, const float* w, float inverse_scale) {
  float level[kCodebookBlock];
  nearest_levels(x, inverse_scale, level);
  float qx[kLanes] = {}, qq[kLanes] = {};
  for (int j = 0; j < kCodebookBlock; j += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float wq = w[j + l] * level[j + l];
      qx[l] += wq * x[j + l];
      qq[l] += wq * level[j + l];
    }
  }
  return {sum_lanes(qx), sum_lanes(qq)};
}

float level_error(const float* x, const float* w, float scale) {
  float level[kCodebookBlock] = {};
  if (scale != 0) nearest_levels(x, 1.0f / scale, level);
  float err[kLanes] = {};
  for (int j = 0; j < kCodebookBlock; j += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float e = x[j + l] - scale * level[j + l];
      err[l] += w[j + l] * e * e;
    }
  }
  return sum_lanes(err);
}

float fit_level_scale(const float* x, const float* w, bool search) {
  float peak = 0;  // the element of greatest magnitude, with its sign
  for (int j = 0; j < kCodebookBlock; ++j) {
    if (std::fabs(x[j]) > std::fabs(peak)) peak = x[j];
  }
  if (std::fabs(peak) < kVanishes) return 0;
  constexpr float kLow = kNonLinearLevels.front();
  constexpr float kHigh = kNonLinearLevels.back();
  if (!search) return peak / kLow;

  float best_gain = 0, scale = peak / kLow;
  const auto consider = [&](float inverse) {
    const LevelSums s = project(x, w, inverse);
    if (s.gain() > best_gain) {
      best_gain = s.gain();
      scale = s.scale();
      return true;
    }
    return false;
  };
  // Where the peak lands, in levels: from well inside the table to a fifth past its end (clipped).
  constexpr int kTries = 16;
  constexpr float kFirst = 0.76f, kStep = 0.03f;
  for (int t = 0; t < kTries; ++t) {
    const float reach = kFirst + kStep * static_cast<float>(t);
    consider(reach * kLow / peak);
    consider(reach * kHigh / peak);
  }
  for (int round = 0; round < 4; ++round) {
    if (!consider(1.0f / scale)) break;
  }
  return scale;
}

}  // namespace narrow::formats

// The block fits against exhaustive scans of scales (and mins), and the helpers around them.
#include "formats/fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "formats/super_fit.h"

namespace narrow::formats {
namespace {

template <int N>
void draw(Rng& rng, float* x, float* w) {
  for (int i = 0; i < N; ++i) {
    x[i] = rng.normal();
    w[i] = rng.uniform(0.2f, 1.0f);
  }
}

template <int N>
void check_symmetric(int lo, int hi, double slack) {
  Rng rng(static_cast<std::uint64_t>(N * 1000 + hi));
  double fitted = 0, scanned = 0;
  for (int trial = 0; trial < 50; ++trial) {
    float x[N], w[N];
    draw<N>(rng, x, w);
    const SymmetricFit f = fit_symmetric<N>(x, w, lo, hi);
    float top = 0;
    for (const float v : x) top = std::max(top, std::fabs(v));
    float best = std::numeric_limits<float>::max();
    for (int step = 1; step <= 4000; ++step) {
      const float s = top / static_cast<float>(hi) * static_cast<float>(step) / 2000;
      best = std::min(best, symmetric_loss<N>(x, w, s, lo, hi));
      if (lo != -hi) best = std::min(best, symmetric_loss<N>(x, w, -s, lo, hi));
    }
    // What the fit claims is what a decoder would see.
    EXPECT_LE(symmetric_loss<N>(x, w, f.scale, lo, hi), 1.001f * f.loss + 1e-6f);
    fitted += f.loss;
    scanned += best;
  }
  EXPECT_LE(fitted, slack * scanned) << N << " elements, codes " << lo << ".." << hi;
}

TEST(Fit, SymmetricComesCloseToAnExhaustiveScan) {
  check_symmetric<16>(-4, 3, 1.01);
  check_symmetric<32>(-8, 7, 1.02);
  check_symmetric<32>(-16, 15, 1.05);
  check_symmetric<16>(-32, 31, 1.15);
  check_symmetric<32>(-127, 127, 1.15);
}

template <int N>
void check_affine(int hi, float max_min, double slack) {
  Rng rng(static_cast<std::uint64_t>(N * 1000 + hi));
  double fitted = 0, scanned = 0;
  for (int trial = 0; trial < 20; ++trial) {
    float x[N], w[N];
    draw<N>(rng, x, w);
    const AffineFit f = fit_affine<N>(x, w, hi, max_min);
    EXPECT_LE(f.min, max_min);
    EXPECT_GE(f.scale, 0.0f);
    const float top = *std::max_element(x, x + N), bottom = *std::min_element(x, x + N);
    float best = std::numeric_limits<float>::max();
    for (int a = -10; a <= 40; ++a) {
      for (int b = -10; b <= 40; ++b) {
        const float low = std::min(bottom + (top - bottom) * static_cast<float>(a) / 100, max_min);
        const float high = top - (top - bottom) * static_cast<float>(b) / 100;
        if (high > low)
          best = std::min(best, affine_loss<N>(x, w, (high - low) / static_cast<float>(hi), low, hi));
      }
    }
    EXPECT_LE(affine_loss<N>(x, w, f.scale, f.min, hi), 1.001f * f.loss + 1e-6f);
    fitted += f.loss;
    scanned += best;
  }
  EXPECT_LE(fitted, slack * scanned) << N << " elements, codes 0.." << hi;
}

TEST(Fit, AffineComesCloseToAnExhaustiveScan) {
  const float any = std::numeric_limits<float>::max();
  check_affine<16>(3, 0.0f, 1.03);
  check_affine<32>(15, 0.0f, 1.03);
  check_affine<32>(15, any, 1.03);
  check_affine<32>(31, any, 1.03);
}

TEST(Fit, MinStaysBelowItsLimitOnPositiveBlocks) {
  Rng rng(3);
  float x[32], w[32];
  draw<32>(rng, x, w);
  for (float& v : x) v = std::fabs(v) + 1;
  const AffineFit f = fit_affine<32>(x, w, 15, 0.0f);
  EXPECT_LE(f.min, 0.0f);
  EXPECT_GT(f.scale, 0.0f);
  EXPECT_LT(fit_affine<32>(x, w, 15, std::numeric_limits<float>::max()).loss, f.loss);
}

TEST(Fit, ExactGridsAreFoundExactly) {
  std::int8_t q[32];
  std::uint8_t u[32];
  float x[32], ones[32];
  Rng rng(5);
  for (int i = 0; i < 32; ++i) {
    ones[i] = 1;
    q[i] = static_cast<std::int8_t>(static_cast<int>(rng.next_u64() % 16) - 8);
    u[i] = static_cast<std::uint8_t>(q[i] + 8);
  }
  q[0] = -8, u[0] = 0;
  q[1] = 7, u[1] = 15;
  for (int i = 0; i < 32; ++i) x[i] = 0.37f * static_cast<float>(q[i]);
  const SymmetricFit s = fit_symmetric<32>(x, ones, -8, 7);
  EXPECT_NEAR(s.scale, 0.37f, 1e-5f);
  std::int8_t got[32];
  symmetric_codes<32>(x, s.scale, -8, 7, got);
  EXPECT_TRUE(std::equal(q, q + 32, got));
  for (int i = 0; i < 32; ++i) x[i] = 0.37f * static_cast<float>(u[i]) - 1.9f;
  const AffineFit a = fit_affine<32>(x, ones, 15, 0.0f);
  EXPECT_NEAR(a.scale, 0.37f, 1e-5f);
  EXPECT_NEAR(a.min, -1.9f, 1e-4f);
  std::uint8_t got_u[32];
  affine_codes<32>(x, a.scale, a.min, 15, got_u);
  EXPECT_TRUE(std::equal(u, u + 32, got_u));
}

TEST(Fit, NormalizeIsExactAndKeepsHalvesFinite) {
  for (const float top : {1.0f, -0.3f, 3e38f, 65504.0f, 1e-7f}) {
    const float x[4] = {top, top / 2, 0, -top / 8};
    float y[4];
    const Normalizer n = normalize(x, 4, y);
    ASSERT_FALSE(n.zero) << top;
    EXPECT_GE(std::fabs(y[0]), 2.0f);
    EXPECT_LT(std::fabs(y[0]), 4.0f);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(y[i] * n.up, x[i]);
    EXPECT_TRUE(std::isfinite(to_f32(n.store(3.9f))));
    EXPECT_TRUE(std::isfinite(to_f32(n.store(-1e30f))));
  }
  const float nothing[2] = {1e-9f, -0.0f};
  float y[2];
  EXPECT_TRUE(normalize(nothing, 2, y).zero);
  EXPECT_EQ(y[0], 0.0f);
}

TEST(Fit, WeightsFollowTheRule) {
  const float x[4] = {2, -2, 0, 0};  // mean square 2
  float w[4];
  fill_weights(WeightRule::kUniform, x, nullptr, 4, w);
  EXPECT_EQ(std::vector<float>(w, w + 4), std::vector<float>(4, 1.0f));
  fill_weights(WeightRule::kMagnitude, x, nullptr, 4, w);
  EXPECT_FLOAT_EQ(w[0] / w[2], std::sqrt(3.0f));
  EXPECT_EQ(w[0], w[1]);
  const float importance[4] = {1, 3, 0, 1};
  fill_weights(WeightRule::kUniform, x, importance, 4, w);
  EXPECT_FLOAT_EQ(w[1] / w[0], 3.0f);
  EXPECT_EQ(w[2], 0.0f);
  EXPECT_FLOAT_EQ(w[0], w[3]);
  const float none[4] = {};
  fill_weights(WeightRule::kUniform, x, none, 4, w);
  EXPECT_EQ(w[3], 1.0f);
}

// Blocks of very different size in one super-block: the second level must still serve the small ones.
TEST(SuperFit, SmallBlocksBesideALargeOneKeepSomePrecision) {
  Rng rng(8);
  float x[256];
  for (int i = 0; i < 256; ++i) x[i] = rng.normal() * (i < 32 ? 1.0f : 0.1f);
  AffineSuperBlock b;
  encode_affine_super_block<32>({15, 63, WeightRule::kMagnitude}, x, nullptr, true, &b);
  double error = 0, weight = 0;
  for (int i = 32; i < 256; ++i) {
    const float y = to_f32(b.d) * static_cast<float>(b.sc[i / 32]) * static_cast<float>(b.q[i]) -
                    to_f32(b.dmin) * static_cast<float>(b.mn[i / 32]);
    error += (static_cast<double>(x[i]) - y) * (static_cast<double>(x[i]) - y);
    weight += static_cast<double>(x[i]) * x[i];
  }
  EXPECT_LE(std::sqrt(error / weight), 0.12);
  SymmetricSuperBlock s;
  encode_symmetric_super_block({-32, 31, -128, 127, WeightRule::kMagnitude}, x, nullptr, true, &s);
  error = 0;
  for (int i = 32; i < 256; ++i) {
    const float y = to_f32(s.d) * static_cast<float>(s.sc[i / 16]) * static_cast<float>(s.q[i]);
    error += (static_cast<double>(x[i]) - y) * (static_cast<double>(x[i]) - y);
  }
  EXPECT_LE(std::sqrt(error / weight), 0.025);
}

}  // namespace
}  // namespace narrow::formats

// What every unit codec promises: it changes its unit only, reports what the block decodes to, never loses
// more than the codes it found, and makes use of what the metric's off-diagonal entries say.
#include "formats/unit_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/rng.h"
#include "testing/testing.h"

namespace narrow::formats {
namespace {

constexpr int kBlock = 256;

// The Gram matrix of a few random inputs, neighbours correlated, columns of different sizes; [n, n].
std::vector<float> random_metric(Rng& rng, int n) {
  constexpr int kSamples = 24;
  std::vector<double> size(static_cast<std::size_t>(n)), x(static_cast<std::size_t>(n));
  for (double& s : size) s = std::exp(0.5 * static_cast<double>(rng.normal()));
  std::vector<float> m(static_cast<std::size_t>(n * n));
  for (int s = 0; s < kSamples; ++s) {
    const double common = static_cast<double>(rng.normal());
    for (std::size_t j = 0; j < x.size(); ++j) {
      x[j] = size[j] * (0.8 * common + 0.6 * static_cast<double>(rng.normal()));
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      for (std::size_t j = 0; j < x.size(); ++j) {
        m[i * x.size() + j] += static_cast<float>(x[i] * x[j] / kSamples);
      }
    }
  }
  return m;
}

double loss(const float* x, const float* y, const std::vector<float>& metric, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      sum += (static_cast<double>(x[i]) - static_cast<double>(y[i])) *
             static_cast<double>(metric[static_cast<std::size_t>(i * n + j)]) *
             (static_cast<double>(x[j]) - static_cast<double>(y[j]));
    }
  }
  return sum;
}

struct Sample {
  std::vector<float> x;
  std::vector<std::byte> block;
};

Sample make_sample(const FormatInfo& f, Rng& rng) {
  Sample s{std::vector<float>(kBlock), std::vector<std::byte>(static_cast<std::size_t>(f.block_bytes))};
  for (float& v : s.x) v = 0.05f * rng.normal();
  EXPECT_OK(encode_row(f.format, s.x.data(), s.block.data(), kBlock));
  // Error feedback moves the targets away from what was encoded.
  for (float& v : s.x) v += 0.02f * rng.normal();
  return s;
}

std::vector<float> decode(const FormatInfo& f, const std::vector<std::byte>& block) {
  std::vector<float> y(kBlock);
  EXPECT_OK(decode_row(f.format, block.data(), y.data(), kBlock));
  return y;
}

std::vector<const FormatInfo*> unit_formats() {
  std::vector<const FormatInfo*> out;
  for (const FormatInfo& f : all_formats()) {
    if (unit_codec(f.format) != nullptr) out.push_back(&f);
  }
  return out;
}

TEST(UnitCodec, ExistsForVectorCodebooksOnly) {
  const std::map<std::string_view, int> want = {{"iq1_s", 8}, {"iq1_m", 8},   {"iq2_xxs", 8}, {"iq2_xs", 8},
                                                {"iq2_s", 8}, {"iq3_xxs", 8}, {"iq3_s", 4}};
  std::map<std::string_view, int> got;
  for (const FormatInfo* f : unit_formats()) got[f->name] = unit_codec(f->format)->unit;
  EXPECT_EQ(got, want);
}

TEST(UnitCodec, ChangesItsUnitOnlyAndNeverForTheWorse) {
  for (const FormatInfo* f : unit_formats()) {
    const UnitCodec& codec = *unit_codec(f->format);
    Rng rng(1);
    int changed = 0, tried = 0;
    for (int round = 0; round < 4; ++round) {
      Sample s = make_sample(*f, rng);
      std::vector<float> before = decode(*f, s.block);
      for (int u = 0; u < kBlock / codec.unit; ++u) {
        const std::vector<float> metric = random_metric(rng, codec.unit);
        const int at = u * codec.unit;
        float y[8];
        codec.decide(s.block.data(), u, s.x.data() + at, metric.data(), y);
        const std::vector<float> after = decode(*f, s.block);
        for (int j = 0; j < kBlock; ++j) {
          const bool mine = j >= at && j < at + codec.unit;
          const auto i = static_cast<std::size_t>(j);
          ASSERT_EQ(after[i], mine ? y[j - at] : before[i]) << f->name << " unit " << u << " weight " << j;
        }
        const double old_loss = loss(s.x.data() + at, before.data() + at, metric, codec.unit);
        EXPECT_LE(loss(s.x.data() + at, y, metric, codec.unit), old_loss * (1 + 1e-4) + 1e-12) << f->name;
        changed += after != before ? 1 : 0;
        ++tried;
        before = after;
      }
    }
    EXPECT_GT(changed, tried / 4) << f->name;
  }
}

TEST(UnitCodec, NullMeansIdentityAndRunsRepeat) {
  for (const FormatInfo* f : unit_formats()) {
    const UnitCodec& codec = *unit_codec(f->format);
    const auto n = static_cast<std::size_t>(codec.unit);
    std::vector<float> identity(n * n);
    for (std::size_t j = 0; j < n; ++j) identity[j * n + j] = 1;
    Rng rng(2);
    Sample a = make_sample(*f, rng);
    std::vector<std::byte> b = a.block;
    for (int u = 0; u < kBlock / codec.unit; ++u) {
      float y[8];
      codec.decide(a.block.data(), u, a.x.data() + u * codec.unit, nullptr, y);
      codec.decide(b.data(), u, a.x.data() + u * codec.unit, identity.data(), y);
    }
    EXPECT_EQ(a.block, b) << f->name;
  }
}

TEST(UnitCodec, UsesTheWholeMetric) {
  for (const FormatInfo* f : unit_formats()) {
    const UnitCodec& codec = *unit_codec(f->format);
    const int n = codec.unit;
    Rng rng(3);
    double whole = 0, diagonal = 0;
    for (int round = 0; round < 8; ++round) {
      Sample a = make_sample(*f, rng);
      std::vector<std::byte> b = a.block;
      for (int u = 0; u < kBlock / n; ++u) {
        const std::vector<float> metric = random_metric(rng, n);
        std::vector<float> separable(metric.size());
        for (int j = 0; j < n; ++j) {
          const auto at = static_cast<std::size_t>(j * n + j);
          separable[at] = metric[at];
        }
        float y[8];
        codec.decide(a.block.data(), u, a.x.data() + u * n, metric.data(), y);
        whole += loss(a.x.data() + u * n, y, metric, n);
        codec.decide(b.data(), u, a.x.data() + u * n, separable.data(), y);
        diagonal += loss(a.x.data() + u * n, y, metric, n);
      }
    }
    EXPECT_LT(whole, 0.75 * diagonal) << f->name;
  }
}

TEST(UnitCodec, ExtremeTargetsAndMetricsStayFinite) {
  for (const FormatInfo* f : unit_formats()) {
    const UnitCodec& codec = *unit_codec(f->format);
    const int n = codec.unit;
    const auto size = static_cast<std::size_t>(n * n);
    Rng rng(4);
    const std::vector<float> ones(size, 1.0f), zeros(size), great(size, 1e30f);
    for (const auto& metric : {ones, zeros, great}) {
      for (const float scale : {0.0f, 1e-30f, 1.0f, 1e18f}) {
        Sample s = make_sample(*f, rng);
        for (float& v : s.x) v *= scale;
        std::vector<std::byte> empty(s.block.size());
        float y[8];
        codec.decide(s.block.data(), 3, s.x.data(), metric.data(), y);
        EXPECT_EQ(find_non_finite(y, n), -1) << f->name;
        EXPECT_EQ(find_non_finite(decode(*f, s.block).data(), kBlock), -1) << f->name;
        // A block of scale 0 has nothing to decide.
        codec.decide(empty.data(), 3, s.x.data(), metric.data(), y);
        for (int j = 0; j < n; ++j) EXPECT_EQ(y[j], 0.0f) << f->name;
      }
    }
  }
}

}  // namespace
}  // namespace narrow::formats

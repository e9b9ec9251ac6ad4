// What every encoder of the table promises: error budgets, a search that pays, weights that count, and
// finite, stable output for any finite input.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow {
namespace {

constexpr std::int64_t kRow = 4096;

std::vector<const FormatInfo*> encoders() {
  std::vector<const FormatInfo*> out;
  for (const FormatInfo& f : all_formats()) {
    if (f.can_encode()) out.push_back(&f);
  }
  return out;
}

std::vector<float> make_row(std::uint64_t seed, const std::function<float(Rng&)>& draw,
                            std::int64_t k = kRow) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(k));
  for (float& v : x) v = draw(rng);
  return x;
}
std::vector<float> normal_row(std::uint64_t seed) {
  return make_row(seed, [](Rng& r) { return r.normal(); });
}

std::vector<std::byte> encode(const FormatInfo& f, const std::vector<float>& x,
                              const EncodeOptions& options = {}) {
  std::vector<std::byte> bytes(row_bytes(f.format, static_cast<std::int64_t>(x.size())));
  EXPECT_OK(encode_row(f.format, x.data(), bytes.data(), static_cast<std::int64_t>(x.size()), options));
  return bytes;
}
std::vector<float> decode(const FormatInfo& f, const std::vector<std::byte>& bytes, std::size_t k) {
  std::vector<float> y(k);
  EXPECT_OK(decode_row(f.format, bytes.data(), y.data(), static_cast<std::int64_t>(k)));
  return y;
}
std::vector<float> round_trip(const FormatInfo& f, const std::vector<float>& x,
                              const EncodeOptions& options = {}) {
  return decode(f, encode(f, x, options), x.size());
}

double squared_error(const std::vector<float>& x, const std::vector<float>& y, const float* w = nullptr) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += d * d * (w != nullptr ? static_cast<double>(w[i]) : 1.0);
  }
  return sum;
}
double relative_rms(const std::vector<float>& x, const std::vector<float>& y) {
  return std::sqrt(squared_error(x, y) / squared_error(x, std::vector<float>(x.size())));
}

TEST(Encode, ErrorOnNormalRowsIsWithinBudgetAndNotFarBelow) {
  for (const FormatInfo* f : encoders()) {
    double worst = 0;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      const std::vector<float> x = normal_row(seed);
      worst = std::max(worst, relative_rms(x, round_trip(*f, x)));
    }
    RecordProperty(std::string(f->name), std::to_string(worst));
    EXPECT_LE(worst, f->rms_budget) << f->name;
    // A budget with slack would let a damaged search pass.
    if (f->rms_budget > 0) {
      EXPECT_GE(worst, 0.9 * f->rms_budget) << f->name;
    }
  }
}

TEST(Encode, SearchLosesLessThanTextbookScales) {
  const std::pair<const char*, std::function<float(Rng&)>> rows[] = {
      {"normal", [](Rng& r) { return r.normal(); }},
      {"small", [](Rng& r) { return 0.02f * r.normal(); }},
      {"heavy tails", [](Rng& r) { return r.normal() * std::exp(r.normal()); }},
      {"outliers", [](Rng& r) { return 0.05f * r.normal() * (r.next_double() < 0.003 ? 30.0f : 1.0f); }},
      {"positive", [](Rng& r) { return std::fabs(r.normal()); }},
      {"shifted", [](Rng& r) { return 0.3f * r.normal() - 0.5f; }},
  };
  EncodeOptions plain;
  plain.search = false;
  for (const FormatInfo* f : encoders()) {
    for (const auto& [name, draw] : rows) {
      const std::vector<float> x = make_row(11, draw);
      EXPECT_LE(squared_error(x, round_trip(*f, x)), 1.05 * squared_error(x, round_trip(*f, x, plain)))
          << f->name << " on " << name;
    }
    if (f->kind != FormatKind::kQuantized) continue;
    const std::vector<float> x = normal_row(12);
    EXPECT_LT(squared_error(x, round_trip(*f, x)), 0.99 * squared_error(x, round_trip(*f, x, plain)))
        << f->name;
  }
}

TEST(Encode, ImportanceLowersTheWeightedError) {
  const std::vector<float> x = normal_row(21);
  const std::vector<float> importance = make_row(22, [](Rng& r) { return std::exp(2.5f * r.normal()); });
  EncodeOptions weighted;
  weighted.importance = importance.data();
  for (const FormatInfo* f : encoders()) {
    if (f->kind != FormatKind::kQuantized) continue;
    const double with = squared_error(x, round_trip(*f, x, weighted), importance.data());
    const double without = squared_error(x, round_trip(*f, x), importance.data());
    EXPECT_LT(with, 0.97 * without) << f->name;
  }
}

TEST(Encode, OnlyRatiosOfImportancesCount) {
  const std::vector<float> x = normal_row(23);
  const std::vector<float> importance = make_row(24, [](Rng& r) { return std::exp(r.normal()); });
  for (const FormatInfo* f : encoders()) {
    EncodeOptions a;
    a.importance = importance.data();
    const auto want = encode(*f, x, a);
    for (const float factor : {0x1p-90f, 0x1p90f}) {
      std::vector<float> scaled = importance;
      for (float& v : scaled) v *= factor;
      EncodeOptions b;
      b.importance = scaled.data();
      EXPECT_EQ(encode(*f, x, b), want) << f->name << " factor " << factor;
    }
    const std::vector<float> zeros(x.size());
    EncodeOptions none;
    none.importance = zeros.data();
    EXPECT_EQ(encode(*f, x, none), encode(*f, x)) << f->name;
  }
}

// An expert that calibration never reached has importances of zero: its weights must not turn into garbage.
TEST(Encode, BlocksWithoutImportanceKeepTheirValues) {
  const std::vector<float> x = normal_row(26);
  std::vector<float> importance(x.size(), 1.0f);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i / 32 % 2 == 1) importance[i] = 0;
  }
  for (const FormatInfo* f : encoders()) {
    if (f->kind != FormatKind::kQuantized) continue;
    EncodeOptions options;
    options.importance = importance.data();
    EXPECT_LE(relative_rms(x, round_trip(*f, x, options)), 1.5 * f->rms_budget) << f->name;
  }
}

TEST(Encode, ScalingByPowersOfTwoChangesOnlyTheScales) {
  const std::vector<float> x = normal_row(25);
  for (const FormatInfo* f : encoders()) {
    const std::vector<float> y = round_trip(*f, x);
    std::vector<float> small = x;
    for (float& v : small) v *= 0x1p-4f;
    const std::vector<float> ys = round_trip(*f, small);
    EXPECT_NEAR(relative_rms(small, ys), relative_rms(x, y), 0.02 * f->rms_budget) << f->name;
  }
}

TEST(Encode, ZerosAreExact) {
  const std::vector<float> x(kRow, 0.0f);
  const std::vector<float> negative(kRow, -0.0f);
  for (const FormatInfo* f : encoders()) {
    for (const bool search : {false, true}) {
      EncodeOptions options;
      options.search = search;
      EXPECT_EQ(round_trip(*f, x, options), x) << f->name;
      EXPECT_EQ(round_trip(*f, negative, options), x) << f->name;
    }
  }
}

TEST(Encode, ConstantRows) {
  for (const FormatInfo* f : encoders()) {
    for (const float c : {1.0f, -1.0f, 0.37f, -0.0123f}) {
      const std::vector<float> x(kRow, c);
      const std::vector<float> y = round_trip(*f, x);
      // mxfp4 has power-of-two scales only: its grid is as coarse as its code.
      const double budget = f->format == Format::kMXFP4 ? 0.2 : 0.01;
      EXPECT_LE(relative_rms(x, y), budget) << f->name << " at " << c;
    }
  }
}

TEST(Encode, AnyFiniteInputDecodesFinite) {
  const float top = std::numeric_limits<float>::max();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const std::pair<const char*, std::function<float(Rng&)>> rows[] = {
      {"greatest", [&](Rng& r) { return r.next_double() < 0.5 ? top : -top; }},
      {"one sign greatest", [&](Rng&) { return -top; }},
      {"beyond f16", [](Rng& r) { return 1e8f * r.normal(); }},
      {"above all scales", [](Rng& r) { return 1e20f * r.normal(); }},
      {"denormal", [&](Rng& r) { return tiny * std::floor(100.0f * r.normal()); }},
      {"small halves", [](Rng& r) { return 1e-7f * r.normal(); }},
      {"vanishing", [](Rng& r) { return 1e-12f * r.normal(); }},
      {"all magnitudes", [](Rng& r) { return r.normal() * std::exp2(r.uniform(-140, 120)); }},
      {"one spike", [](Rng& r) { return r.next_double() < 0.01 ? 1e30f : 1e-5f * r.normal(); }},
  };
  for (const FormatInfo* f : encoders()) {
    if (f->kind != FormatKind::kQuantized) continue;  // f16 and bf16 overflow as IEEE says
    for (const auto& [name, draw] : rows) {
      const std::vector<float> x = make_row(31, draw);
      for (const bool search : {false, true}) {
        EncodeOptions options;
        options.search = search;
        const std::vector<float> y = round_trip(*f, x, options);
        EXPECT_EQ(find_non_finite(y.data(), kRow), -1) << f->name << " on " << name << ", search " << search;
        // Nothing decodes to more than twice the greatest input.
        double greatest = 0, decoded = 0;
        for (const float v : x) greatest = std::max(greatest, std::fabs(static_cast<double>(v)));
        for (const float v : y) decoded = std::max(decoded, std::fabs(static_cast<double>(v)));
        EXPECT_LE(decoded, 2 * greatest + 1e-6) << f->name << " on " << name << ", search " << search;
      }
    }
  }
}

// What a format can hold exactly, encoding must not damage much: a second pass moves little.
TEST(Encode, DecodedValuesSurviveASecondPass) {
  for (const FormatInfo* f : encoders()) {
    const std::vector<float> x = normal_row(41);
    const std::vector<float> once = round_trip(*f, x);
    const std::vector<float> twice = round_trip(*f, once);
    EXPECT_LE(squared_error(once, twice), 0.1 * squared_error(x, once)) << f->name;
    EXPECT_LE(squared_error(x, twice), 1.05 * squared_error(x, once)) << f->name;
  }
}

TEST(Encode, BlocksDoNotSeeEachOther) {
  const std::vector<float> x = normal_row(51);
  for (const FormatInfo* f : encoders()) {
    const auto whole = encode(*f, x);
    EXPECT_EQ(encode(*f, x), whole) << f->name;
    const std::size_t half = x.size() / 2;
    const std::vector<float> back(x.begin() + static_cast<std::ptrdiff_t>(half), x.end());
    const auto part = encode(*f, back);
    EXPECT_TRUE(
        std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(whole.size() / 2)))
        << f->name;
  }
}

}  // namespace
}  // namespace narrow

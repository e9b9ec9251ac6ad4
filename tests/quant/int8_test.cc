// Int8 rows, static scales and the choice of outlier columns.
#include "quant/int8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "base/rng.h"
#include "quant/outliers.h"
#include "testing/testing.h"

namespace narrow::quant {
namespace {

std::vector<float> matrix(std::int64_t n, std::int64_t k, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> w(static_cast<std::size_t>(n * k));
  for (float& v : w) v = rng.normal();
  return w;
}

TEST(Int8Rows, SearchIsNeverWorseAndOutliersAreLeftOut) {
  const std::int64_t n = 37, k = 96;
  std::vector<float> w = matrix(n, k, 1);
  for (std::int64_t r = 0; r < n; ++r) w[static_cast<std::size_t>(r * k + 9)] = 50.0f;
  const std::vector<std::int32_t> outliers = {9};
  double errors[2];
  for (const bool search : {false, true}) {
    std::vector<std::int8_t> codes(w.size());
    std::vector<float> scales(static_cast<std::size_t>(n));
    WeightError error;
    ASSERT_OK(quantize_int8_rows(w.data(), n, k, outliers, {}, search, codes.data(), scales.data(), &error));
    errors[search ? 1 : 0] = error.sum_squared_error;
    for (std::int64_t r = 0; r < n; ++r) {
      EXPECT_EQ(codes[static_cast<std::size_t>(r * k + 9)], 0);
      const float scale = scales[static_cast<std::size_t>(r)];
      EXPECT_EQ(scale, kernels::dense_int8_scale(scale));
      if (search) continue;
      for (std::int64_t i = 0; i < k; ++i) {
        if (i == 9) continue;
        const auto at = static_cast<std::size_t>(r * k + i);
        EXPECT_NEAR(scale * static_cast<float>(codes[at]), w[at], 0.5001f * scale);
      }
    }
  }
  EXPECT_LE(errors[1], errors[0]);
  w[static_cast<std::size_t>(3 * k + 4)] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::int8_t> codes(w.size());
  std::vector<float> scales(static_cast<std::size_t>(n));
  const Status s = quantize_int8_rows(w.data(), n, k, {}, {}, true, codes.data(), scales.data(), nullptr);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("[3, 4]"), std::string::npos);
}

TEST(Int8Scale, HasTwelveBitsAndIsNotSmaller) {
  Rng rng(3);
  for (int i = 0; i < 1000; ++i) {
    const float x = std::exp2(rng.uniform(-40, 40)), s = kernels::dense_int8_scale(x);
    EXPECT_GE(s, x);
    EXPECT_LE(s, x * (1 + 1.0f / 2048));
    // Exact products of codes, and of two scales.
    EXPECT_EQ(static_cast<double>(s * 127.0f), static_cast<double>(s) * 127.0);
    EXPECT_EQ(static_cast<double>(s * s), static_cast<double>(s) * static_cast<double>(s));
  }
}

TEST(StaticScale, HoldsTheLargestValueOutsideOfOutlierColumns) {
  const std::vector<float> abs_max = {3, 2, 90, 6.35f};
  const std::vector<std::int32_t> outliers = {2};
  // Rounding of such rows is far above the noise that leaves room.
  std::vector<float> x = {0.1f, 0.1f, 0.1f, 0.1f};
  const ops::ConstMatrix rows(x.data(), 1, 4);
  EXPECT_NEAR(static_scale(rows, abs_max, outliers, {1, 2}), 0.05f, 0.05f / 1000);
  EXPECT_NEAR(static_scale(rows, abs_max, {}, {1, 2}), 90.0f / 127, 90.0f / 127 / 1000);
  EXPECT_GT(static_scale(rows, std::vector<float>(4, 0.0f), {}, {1, 2}), 0.0f);
  EXPECT_NEAR(static_scale(rows, abs_max, outliers, {1.5, 2}), 0.075f, 0.075f / 1000);
  // Large rows, once with rows that do not count: noise permits more than twice the range.
  x = {100, 100, 100, 100};
  EXPECT_NEAR(static_scale(rows, abs_max, outliers, {1, 2}), 0.1f, 0.1f / 1000);
  x.insert(x.end(), {0, 0, 0, 0, 1, std::numeric_limits<float>::infinity(), 1, 1});
  EXPECT_NEAR(static_scale({x.data(), 3, 4}, abs_max, outliers, {1, 2}), 0.1f, 0.1f / 1000);
}

TEST(Outliers, TheLargeColumnsAndNoOthers) {
  const std::int64_t m = 100, k = 64;
  std::vector<float> x = matrix(m, k, 4);
  for (std::int64_t r = 0; r < m; ++r) {
    x[static_cast<std::size_t>(r * k + 40)] *= 100.0f;
    x[static_cast<std::size_t>(r * k + 7)] *= 30.0f;
  }
  const ops::ConstMatrix rows(x.data(), m, k);
  EXPECT_EQ(choose_outliers(rows, {1, 0, {}, 0.01}), (std::vector<std::int32_t>{40}));
  EXPECT_EQ(choose_outliers(rows, {8, 0, {}, 0.2}), (std::vector<std::int32_t>{7, 40}));
  EXPECT_EQ(choose_outliers(rows, {0, 0, {}, 0.01}), std::vector<std::int32_t>{});
  EXPECT_LE(choose_outliers(rows, {1000, 0, {}, 0.0}).size(), static_cast<std::size_t>(k));
  // One token's large value counts for little, unless columns are asked for by size.
  x[static_cast<std::size_t>(5 * k + 3)] = 1e4f;
  EXPECT_EQ(choose_outliers(rows, {1, 1, {}, 0.01}), (std::vector<std::int32_t>{3}));
  std::vector<float> seen(static_cast<std::size_t>(k), 1.0f);  // in rows that are not among the sample
  seen[11] = 1e5f;
  EXPECT_EQ(choose_outliers(rows, {1, 1, seen, 0.01}), (std::vector<std::int32_t>{11}));
  EXPECT_EQ(choose_outliers(rows, {2, 0, {}, 0.01}), (std::vector<std::int32_t>{7, 40}));
  const std::vector<float> zeros(static_cast<std::size_t>(k), 0.0f);
  EXPECT_TRUE(choose_outliers({zeros.data(), 1, k}, {8, 0, {}, 0.01}).empty());
  x[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(choose_outliers(rows, {2, 0, {}, 0.01}), (std::vector<std::int32_t>{7, 40}));
}

}  // namespace
}  // namespace narrow::quant

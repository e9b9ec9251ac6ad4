#include "calib/stats.h"

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "base/thread_team.h"
#include "testing/testing.h"

namespace narrow::calib {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> noise(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = rng.normal() + 0.3f;
  return x;
}

InputStats of(const std::vector<float>& x, std::int64_t k) {
  InputStats s;
  EXPECT_OK(s.add({x.data(), static_cast<std::int64_t>(x.size()) / k, k}));
  return s;
}

TEST(InputStats, SumsMaximaAndHessiansAreThoseOfTheRows) {
  constexpr std::int64_t kRows = 37, kWidth = 70;
  const std::vector<float> x = noise(kRows * kWidth, 1);
  InputStats s;
  ASSERT_OK(s.add({x.data(), 20, kWidth}, true));
  ASSERT_OK(s.add({x.data() + 20 * kWidth, kRows - 20, kWidth}, true));
  EXPECT_EQ(s.rows, kRows);
  for (std::int64_t c = 0; c < kWidth; ++c) {
    double sum = 0, square = 0;
    float most = 0;
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float v = x[static_cast<std::size_t>(r * kWidth + c)];
      sum += v;
      square += static_cast<double>(v) * v;
      most = std::max(most, std::fabs(v));
    }
    const auto i = static_cast<std::size_t>(c);
    EXPECT_DOUBLE_EQ(s.sum[i], sum);
    EXPECT_DOUBLE_EQ(s.sum_square[i], square);
    EXPECT_EQ(s.abs_max[i], most);
    EXPECT_NEAR(s.gram[static_cast<std::size_t>(c * kWidth + c)], square, 1e-4 * square);
  }
}

TEST(InputStats, RowsThatAreNotFiniteAreDroppedAndCounted) {
  constexpr std::int64_t kWidth = 3;
  const std::vector<float> x = {1, 2, 3, kNan, 0, 0, 4, 5, 6, 0, kInf, 0, 0, 0, -kInf};
  for (const bool with_gram : {false, true}) {
    InputStats s;
    ASSERT_OK(s.add({x.data(), 5, kWidth}, with_gram));
    EXPECT_EQ(s.rows, 2);
    EXPECT_EQ(s.dropped, 3);
    EXPECT_EQ(s.sum, (std::vector<double>{5, 7, 9}));
    EXPECT_EQ(s.sum_square, (std::vector<double>{17, 29, 45}));
    if (with_gram) {
      EXPECT_FLOAT_EQ(s.gram[1], 1 * 2 + 4 * 5);
    }
  }
}

TEST(InputStats, MergingIsAddingAllRowsAtOnce) {
  const std::vector<float> a = noise(8 * 5, 1), b = noise(3 * 5, 2);
  std::vector<float> both = a;
  both.insert(both.end(), b.begin(), b.end());
  InputStats merged = of(a, 5);
  ASSERT_OK(merged.merge(of(b, 5)));
  const InputStats once = of(both, 5);
  EXPECT_EQ(merged.rows, once.rows);
  EXPECT_EQ(merged.abs_max, once.abs_max);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(merged.sum_square[i], once.sum_square[i], 1e-12);
  InputStats file = of(b, 5);
  file.sum.clear();
  ASSERT_OK(merged.merge(file));
  EXPECT_TRUE(merged.sum.empty());
  EXPECT_FALSE(merged.abs_max.empty());
  EXPECT_FALSE(merged.merge(of(noise(8, 1), 4)).ok());
}

TEST(InputStats, TheSameBytesForAnyNumberOfThreads) {
  const std::vector<float> x = noise(64 * 300, 5);
  std::vector<InputStats> runs;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    ASSERT_OK(runs.emplace_back().add({x.data(), 64, 300}, true));
  }
  set_thread_count(0);
  for (const InputStats& r : runs) {
    EXPECT_EQ(r.sum_square, runs[0].sum_square);
    EXPECT_TRUE(std::equal(r.gram.span().begin(), r.gram.span().end(), runs[0].gram.span().begin()));
  }
}

TEST(ModelStats, MergeFindsMatricesOfOneFileOnlyAndRefusesOtherShapes) {
  ModelStats a, b;
  a.chunk_tokens = 512;
  a.chunks = 10;
  a.datasets = {"x.txt"};
  a.inputs["both"].push_back(of(noise(20, 1), 4));
  a.inputs["only a"].push_back(of(noise(20, 2), 4));
  b.chunk_tokens = 256;
  b.chunks = 5;
  b.datasets = {"x.txt", "y.txt"};
  b.inputs["both"].push_back(of(noise(12, 3), 4));
  b.inputs["only b"].push_back(of(noise(8, 4), 4));
  ASSERT_OK(a.merge(b));
  EXPECT_EQ(a.inputs["both"][0].rows, 8);
  EXPECT_EQ(a.inputs["only a"][0].rows, 5);
  EXPECT_EQ(a.inputs["only b"][0].rows, 2);
  EXPECT_EQ(a.datasets, (std::vector<std::string>{"x.txt", "y.txt"}));
  EXPECT_EQ(a.chunks, 13);  // 5 windows of 256 are 3 of 512
  ModelStats other;
  other.inputs["both"].push_back(of(noise(10, 1), 5));
  const Status s = a.merge(other);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("'both'"), std::string::npos);
}

TEST(Moments, OfWhatWasSeenWell) {
  const std::vector<float> x = noise(200 * 4, 9);
  std::vector<InputStats> stats;
  stats.push_back(of(x, 4));
  const std::vector<Moments> m = moments(stats);
  ASSERT_EQ(m.size(), 1u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(m[0].mean_square[i], static_cast<float>(stats[0].sum_square[i] / 200));
    EXPECT_FLOAT_EQ(m[0].mean[i], static_cast<float>(stats[0].sum[i] / 200));
  }
  EXPECT_EQ(m[0].abs_max, stats[0].abs_max);
}

TEST(Moments, InputsThatAreAlwaysZeroCountNextToNothingButSomething) {
  std::vector<float> x = noise(100 * 4, 9);
  for (std::size_t r = 0; r < 100; ++r) x[4 * r + 2] = 0.0f;
  std::vector<InputStats> stats;
  stats.push_back(of(x, 4));
  const Moments m = moments(stats)[0];
  EXPECT_GT(m.mean_square[2], 0.0f);
  EXPECT_LT(m.mean_square[2], 1e-5f * m.mean_square[0]);
}

TEST(Moments, DuplicatedInputsHaveTheSame) {
  std::vector<float> x = noise(100 * 4, 9);
  for (std::size_t r = 0; r < 100; ++r) x[4 * r + 2] = x[4 * r];
  std::vector<InputStats> stats;
  stats.push_back(of(x, 4));
  const Moments m = moments(stats)[0];
  EXPECT_EQ(m.mean_square[2], m.mean_square[0]);
}

TEST(Moments, WithoutDataOrNothingButZerosEveryInputCountsOne) {
  for (const bool rows : {false, true}) {
    std::vector<InputStats> stats;
    stats.push_back(rows ? of(std::vector<float>(40, 0.0f), 4) : InputStats::of_width(4));
    const Moments m = moments(stats)[0];
    EXPECT_EQ(m.mean_square, std::vector<float>(4, 1.0f));
    EXPECT_TRUE(m.mean.empty());
    EXPECT_TRUE(m.abs_max.empty());
  }
}

TEST(Moments, StarvedExpertsBorrowFromTheOthers) {
  std::vector<InputStats> stats;
  stats.push_back(of(std::vector<float>(1000 * 2, 2.0f), 2));
  stats.push_back(of(std::vector<float>(16 * 2, 8.0f), 2));  // a quarter of kFewRows
  stats.push_back(InputStats::of_width(2));
  const std::vector<Moments> m = moments(stats);
  const double all = (1000 * 4.0 + 16 * 64.0) / 1016;
  EXPECT_FLOAT_EQ(m[0].mean_square[0], 4.0f);
  EXPECT_FLOAT_EQ(m[1].mean_square[0], static_cast<float>(0.25 * 64 + 0.75 * all));
  EXPECT_FLOAT_EQ(m[2].mean_square[0], static_cast<float>(all));
  EXPECT_FLOAT_EQ(m[0].abs_max[0], 2.0f);
  EXPECT_FLOAT_EQ(m[2].abs_max[0], 8.0f);
}

TEST(Findings, NameWhatIsWrongAndNothingElse) {
  ModelStats stats;
  stats.inputs["fine"].push_back(of(noise(40, 1), 4));
  EXPECT_TRUE(findings(stats).empty());
  stats.inputs["none"].push_back(InputStats::of_width(4));
  stats.inputs["zeros"].push_back(of(std::vector<float>(40, 0.0f), 4));
  stats.inputs["dead"].push_back(of({1, 0, 1, 1, 2, 0, 2, 2}, 4));
  stats.inputs["nan"].push_back(of({1, 1, 1, 1, kNan, 2, 2, 2}, 4));
  stats.inputs["experts"].push_back(of(noise(4 * 100, 3), 4));
  stats.inputs["experts"].push_back(of(noise(4 * 3, 4), 4));
  std::string all;
  for (const std::string& line : findings(stats)) all += line + "\n";
  for (const std::string_view part :
       {"no data for 1 matrices", ": none\n", "nothing but zeros", ": zeros\n", "dead (1, first 1)",
        "1 rows with NaN", "nan (1)", "experts expert 1 (3)"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << " is not in " << all;
  }
  EXPECT_EQ(all.find("fine"), std::string::npos);
  EXPECT_EQ(findings(stats).size(), 5u);
}

}  // namespace
}  // namespace narrow::calib

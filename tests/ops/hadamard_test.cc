#include "ops/hadamard.h"

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "base/thread_team.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

constexpr std::int64_t kSizes[] = {1,  2,  3,  4,  5,   6,   9,   12,  16,  20,  28,  30,  36,
                                   43, 52, 64, 96, 104, 128, 140, 172, 576, 640, 896, 1536};

std::vector<float> matrix_of(const Rotation& r, bool transposed = false) {
  const std::int64_t n = r.size();
  std::vector<float> m(static_cast<std::size_t>(n * n), 0.0f), scratch(m.size());
  for (std::int64_t i = 0; i < n; ++i) m[static_cast<std::size_t>(i * n + i)] = 1.0f;
  transposed ? r.apply_transposed(m.data(), n, scratch.data()) : r.apply(m.data(), n, scratch.data());
  return m;
}

TEST(Rotation, IsOrthogonalAndSpreads) {
  for (const bool keeps_mean : {false, true}) {
    for (const std::int64_t n : kSizes) {
      const Rotation r(n, 5, keeps_mean);
      const std::vector<float> m = matrix_of(r), t = matrix_of(r, true);
      const auto at = [&](const std::vector<float>& x, std::int64_t i, std::int64_t j) {
        return static_cast<double>(x[static_cast<std::size_t>(i * n + j)]);
      };
      double worst = 0, largest = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        double row_sum = 0;
        for (std::int64_t j = 0; j < n; ++j) {
          ASSERT_NEAR(at(t, i, j), at(m, j, i), 1e-6) << n;
          largest = std::max(largest, std::fabs(at(m, i, j)));
          row_sum += at(m, i, j);
        }
        if (keeps_mean) {
          EXPECT_NEAR(row_sum, 1.0, 1e-5) << n << " row " << i;
        }
      }
      for (std::int64_t i = 0; i < std::min<std::int64_t>(n, 40); ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double dot = i == j ? -1.0 : 0.0;
          for (std::int64_t c = 0; c < n; ++c) dot += at(m, i, c) * at(m, j, c);
          worst = std::max(worst, std::fabs(dot));
        }
      }
      EXPECT_LE(worst, 2e-6) << n;
      if (!keeps_mean && r.is_hadamard()) {
        EXPECT_NEAR(largest, 1.0 / std::sqrt(double(n)), 1e-6) << n;
      }
    }
  }
}

TEST(Rotation, PaleyMatricesAreFoundWhereTheyExist) {
  for (const std::int64_t n : {12, 96, 20, 640, 28, 36, 576, 44, 104, 60, 140, 4096, 896, 1536}) {
    EXPECT_TRUE(Rotation(n, 1).is_hadamard()) << n;
  }
  for (const std::int64_t n : {3, 6, 9, 30, 43, 172}) EXPECT_FALSE(Rotation(n, 1).is_hadamard()) << n;
}

TEST(Rotation, DependsOnTheSeedAlone) {
  for (const std::int64_t n : {43, 96}) {
    EXPECT_EQ(matrix_of(Rotation(n, 3)), matrix_of(Rotation(n, 3)));
    EXPECT_NE(matrix_of(Rotation(n, 3)), matrix_of(Rotation(n, 4)));
  }
}

// Inputs x -> R x, outputs y -> R y: (w R^T)(R x) = w x, and R w x is the turned output. For any threads.
TEST(Rotation, BothSidesOfAProduct) {
  const std::int64_t rows = 96, k = 80;
  Rng rng(2);
  std::vector<float> w(rows * k), x(k);
  for (float& v : w) v = rng.normal();
  for (float& v : x) v = rng.normal();
  const auto product = [&](const std::vector<float>& m, const std::vector<float>& in) {
    std::vector<float> y;
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::int64_t c = 0; c < k; ++c)
        sum += double(m[std::size_t(r * k + c)]) * double(in[std::size_t(c)]);
      y.push_back(static_cast<float>(sum));
    }
    return y;
  };
  const Rotation in(20, 1), out(32, 2);
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    std::vector<float> turned = w, turned_x = x;
    rotate_inputs(in, turned.data(), rows, k);
    rotate_inputs(in, turned_x.data(), 1, k);
    rotate_outputs(out, turned.data(), rows, k);
    std::vector<float> want = product(w, x);
    rotate_outputs(out, want.data(), rows, 1);
    const std::vector<float> got = product(turned, turned_x);
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-5f) << i;
    if (first.empty()) first = turned;
    EXPECT_EQ(std::memcmp(first.data(), turned.data(), turned.size() * sizeof(float)), 0);
  }
  set_thread_count(0);
  EXPECT_NE(first, w);
}

}  // namespace
}  // namespace narrow::ops

// Angular steps against transformers' formulas, written out with numpy in the test.
#include "runtime/rope_table.h"

#include <cmath>
#include <sstream>

#include "testing/testing.h"

namespace narrow::runtime {
namespace {

using model::RopeConfig;
using model::RopeScaling;

RopeConfig base(int dims, float theta) {
  RopeConfig r;
  r.dims = dims;
  r.theta = theta;
  return r;
}

void expect_steps(const RopeConfig& rope, bool local, std::int64_t n_ctx, const std::vector<double>& want) {
  ASSERT_OK_AND_ASSIGN(const std::vector<double> got, rope_steps(rope, local, n_ctx));
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i] / want[i], 1.0, 1e-6) << i;
}

std::vector<double> plain(int dims, double theta) {
  std::vector<double> out;
  for (int i = 0; i < dims / 2; ++i) out.push_back(std::pow(theta, -2.0 * i / dims));
  return out;
}

TEST(RopeSteps, PlainLinearAndLocal) {
  RopeConfig r = base(16, 10000.0f);
  expect_steps(r, false, 512, plain(16, 10000.0));
  r.scaling = RopeScaling::kLinear;
  r.factor = 4.0f;
  std::vector<double> quarter = plain(16, 10000.0);
  for (double& s : quarter) s /= 4.0;
  expect_steps(r, false, 512, quarter);
  r.theta_local = 500.0f;  // sliding layers with a theta of their own are not scaled
  expect_steps(r, true, 512, plain(16, 500.0));
}

TEST(RopeSteps, FactorsDivide) {
  for (const RopeScaling scaling : {RopeScaling::kNone, RopeScaling::kLlama3}) {
    RopeConfig r = base(8, 10000.0f);
    r.scaling = scaling;
    r.factors = {1.0f, 2.0f, 4.0f, 8.0f};
    std::vector<double> want = plain(8, 10000.0);
    for (std::size_t i = 0; i < 4; ++i) want[i] /= std::pow(2.0, i);
    expect_steps(r, false, 512, want);
    r.factors.pop_back();
    EXPECT_FALSE(rope_steps(r, false, 512).ok());
    r.factors.push_back(0.0f);
    EXPECT_FALSE(rope_steps(r, false, 512).ok());
  }
}

TEST(RopeSteps, LongRopeChoosesByContext) {
  RopeConfig r = base(4, 10000.0f);
  r.scaling = RopeScaling::kLongRope;
  r.original_context = 4096;
  r.factors_short = {1.0f, 2.0f};
  r.factors_long = {4.0f, 8.0f};
  expect_steps(r, false, 4096, {1.0, 0.01 / 2});
  expect_steps(r, false, 4097, {1.0 / 4, 0.01 / 8});
}

// The yarn of transformers (modeling_rope_utils, _compute_yarn_parameters), as numpy.
constexpr const char* kYarn = R"(
import sys, math, numpy as np
dim, base, factor, orig, fast, slow = [float(a) for a in sys.argv[1:]]
dim = int(dim)
pos = base ** (np.arange(0, dim, 2) / dim)
find = lambda rot: dim * math.log(orig / (rot * 2 * math.pi)) / (2 * math.log(base))
low, high = max(math.floor(find(fast)), 0), min(math.ceil(find(slow)), dim - 1)
if low == high: high += 0.001
extra = 1 - np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
print(*((1 / (factor * pos)) * (1 - extra) + (1 / pos) * extra))
)";

TEST(RopeSteps, YarnMatchesTransformers) {
  NARROW_REQUIRE_PYTHON();
  struct Case {
    int dims;
    float theta, factor;
    int original;
    float fast, slow;
  };
  for (const Case& c :
       {Case{128, 10000.0f, 4.0f, 32768, 32.0f, 1.0f}, Case{64, 1000000.0f, 8.0f, 4096, 32.0f, 1.0f},
        Case{16, 10000.0f, 2.0f, 64, 16.0f, 2.0f}}) {
    RopeConfig r = base(c.dims, c.theta);
    r.scaling = RopeScaling::kYarn;
    r.factor = c.factor;
    r.original_context = c.original;
    r.beta_fast = c.fast;
    r.beta_slow = c.slow;
    std::istringstream text(testing::run_python(
        kYarn, {std::to_string(c.dims), std::to_string(c.theta), std::to_string(c.factor),
                std::to_string(c.original), std::to_string(c.fast), std::to_string(c.slow)}));
    std::vector<double> want;
    for (double v; text >> v;) want.push_back(v);
    expect_steps(r, false, 512, want);
  }
  RopeConfig r = base(16, 10000.0f);
  r.scaling = RopeScaling::kYarn;
  EXPECT_FALSE(rope_steps(r, false, 512).ok());  // no original context
}

TEST(RopeTable, CosinesOfTheRange) {
  RopeTable t({1.0, 0.25}, 2.0f);
  const std::int64_t positions[] = {100, 101, 102};
  t.fill(positions);
  ASSERT_EQ(t.cos().rows, 3);
  ASSERT_EQ(t.cos().cols, 2);
  for (int r = 0; r < 3; ++r) {
    EXPECT_NEAR(t.cos().row(r)[0], 2.0 * std::cos(100.0 + r), 1e-6);
    EXPECT_NEAR(t.sin().row(r)[1], 2.0 * std::sin((100.0 + r) * 0.25), 1e-6);
  }
}

}  // namespace
}  // namespace narrow::runtime

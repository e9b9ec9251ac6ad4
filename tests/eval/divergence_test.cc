#include "eval/divergence.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "testing/testing.h"

namespace narrow::eval {
namespace {

std::vector<float> random_logits(std::uint64_t seed, std::size_t n, float scale) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (float& v : x) v = scale * rng.normal();
  return x;
}

TEST(Divergence, EqualsNumpyInDoublePrecision) {
  NARROW_REQUIRE_PYTHON();
  nlohmann::json cases = nlohmann::json::array();
  std::vector<TokenScore> mine;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const auto q = random_logits(2 * i, 50 + 40 * i, 1.0f + static_cast<float>(i));
    const auto p = random_logits(2 * i + 1, 50 + 40 * i, 1.0f + static_cast<float>(i));
    const auto t = static_cast<std::int32_t>(i);
    mine.push_back(score_token(q, p, t));
    cases.push_back({{"q", q}, {"p", p}, {"t", t}});
  }
  testing::TempDir dir;
  testing::write_file(dir / "cases.json", cases.dump());
  const std::string out = testing::run_python(R"(
import sys, json, numpy as np
def ls(x):
    x = np.array(x, np.float32).astype(np.float64); m = x.max(); return x - m - np.log(np.exp(x - m).sum())
r = []
for c in json.load(open(sys.argv[1])):
    p, q = ls(c['p']), ls(c['q'])
    r.append([float(-q[c['t']]), float(-p[c['t']]), float((np.exp(p) * (p - q)).sum()), int(p.argmax() == q.argmax())])
print(json.dumps(r)))",
                                              {(dir / "cases.json").string()});
  const auto expected = nlohmann::json::parse(out);
  ASSERT_EQ(expected.size(), mine.size());
  for (std::size_t i = 0; i < mine.size(); ++i) {
    EXPECT_NEAR(mine[i].nll, expected[i][0].get<double>(), 1e-9);
    EXPECT_NEAR(mine[i].reference_nll, expected[i][1].get<double>(), 1e-9);
    EXPECT_NEAR(mine[i].kl, expected[i][2].get<double>(), 1e-9);
    EXPECT_EQ(mine[i].same_top1, expected[i][3].get<int>() == 1);
  }
}

TEST(Divergence, OfAModelWithItselfIsZeroAndShiftsDoNotMatter) {
  const auto p = random_logits(1, 1000, 5.0f);
  auto q = p;
  for (float& v : q) v += 8.0f;  // exact in fp32 for most, and softmax ignores it
  EXPECT_EQ(score_token(p, p, 3).kl, 0.0);
  EXPECT_NEAR(score_token(q, p, 3).kl, 0.0, 1e-9);
  EXPECT_TRUE(score_token(q, p, 3).same_top1);
}

TEST(Divergence, ExtremeLogitsStayFinite) {
  std::vector<float> p(100, -1e4f), q(100, 1e4f);
  p[5] = 1e4f;
  q[7] = -1e4f;
  const TokenScore s = score_token(q, p, 5);
  EXPECT_TRUE(std::isfinite(s.kl));
  EXPECT_GE(s.kl, 0.0);
}

TEST(MeanAndError, OfKnownNumbers) {
  const std::vector<double> x = {1, 2, 3, 4};
  const MeanAndError m = mean_and_error(x);
  EXPECT_DOUBLE_EQ(m.mean, 2.5);
  EXPECT_NEAR(m.se, std::sqrt(5.0 / 3.0 / 4.0), 1e-12);
  EXPECT_EQ(mean_and_error(std::vector<double>{7}).se, 0.0);
}

TEST(Quantile, InterpolatesAsNumpyDoes) {
  const std::vector<double> x = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(x, 0.0), 1);
  EXPECT_DOUBLE_EQ(quantile(x, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(x, 0.9), 3.7);
  EXPECT_DOUBLE_EQ(quantile(x, 1.0), 4);
}

}  // namespace
}  // namespace narrow::eval

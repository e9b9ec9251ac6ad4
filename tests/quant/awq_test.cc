#include "quant/awq.h"

#include <cmath>

#include "base/rng.h"
#include "base/thread_team.h"
#include "testing/testing.h"

namespace narrow::quant {
namespace {

// Inputs of which a few are much larger than the others, and matrices that share them.
struct Layer {
  explicit Layer(Format format, std::int64_t k = 256, std::int64_t n = 48, std::int64_t tokens = 600) {
    Rng rng(3);
    std::vector<float> size;
    for (std::int64_t j = 0; j < k; ++j) size.push_back(j % 37 == 5 ? 30.0f : rng.uniform(0.3f, 1.5f));
    hessian.assign(static_cast<std::size_t>(k * k), 0.0f);
    std::vector<float> x(static_cast<std::size_t>(k));
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::size_t j = 0; j < x.size(); ++j) x[j] = size[j] * rng.normal();
      for (std::size_t i = 0; i < x.size(); ++i) {
        for (std::size_t j = 0; j < x.size(); ++j) hessian[i * x.size() + j] += x[i] * x[j];
      }
    }
    problem.k = problem.channels = k;
    for (std::int64_t j = 0; j < k; ++j) {
      problem.channel.push_back(static_cast<std::int32_t>(j));
      problem.mean_square.push_back(hessian[static_cast<std::size_t>(j * k + j)] /
                                    static_cast<float>(tokens));
    }
    for (int i = 0; i < 2; ++i) {
      AwqMatrix m;
      m.n = n;
      m.format = format;
      for (std::int64_t j = 0; j < n * k; ++j) m.w.push_back(rng.normal());
      m.mean_square = problem.mean_square;
      m.hessian = hessian;
      problem.matrices.push_back(std::move(m));
    }
  }
  AwqProblem problem;
  std::vector<float> hessian;
};

TEST(Awq, HelpsWhereInputsDiffer) {
  for (const Format f : {Format::kQ4_0, Format::kQ3_K, Format::kQ4_K, Format::kIQ4_NL}) {
    const Layer layer(f);
    for (const bool hessian : {true, false}) {
      AwqProblem p = layer.problem;
      for (AwqMatrix& m : p.matrices) {
        if (!hessian) m.hessian = {};
      }
      ASSERT_OK_AND_ASSIGN(const AwqScales s, search_awq(p));
      // Importances alone do much of this for formats with second-level scales.
      EXPECT_LT(s.error, (f == Format::kQ4_K ? 1.0 : 0.9) * s.plain_error) << format_info(f).name;
      EXPECT_GT(s.alpha, 0.0f);
      ASSERT_EQ(s.scale.size(), 256u);
      EXPECT_GT(s.scale[5], s.scale[4]);
      // Geometric middle of the range at 1.
      const auto [low, high] = std::minmax_element(s.scale.begin(), s.scale.end());
      EXPECT_NEAR(*low * *high, 1.0f, 1e-3f);
    }
  }
}

TEST(Awq, LeavesEqualInputsAlone) {
  Layer layer(Format::kQ4_0);
  std::fill(layer.problem.mean_square.begin(), layer.problem.mean_square.end(), 2.0f);
  ASSERT_OK_AND_ASSIGN(const AwqScales s, search_awq(layer.problem));
  for (const float v : s.scale) EXPECT_NEAR(v, 1.0f, 1e-6f);
  EXPECT_NEAR(s.error, s.plain_error, 1e-3 * s.plain_error);
}

TEST(Awq, InputsThatAreAlwaysZeroAndHugeOnesStayInRange) {
  Layer layer(Format::kQ4_0);
  layer.problem.mean_square[3] = 0.0f;
  layer.problem.mean_square[4] = 1e30f;
  ASSERT_OK_AND_ASSIGN(const AwqScales s, search_awq(layer.problem));
  for (const float v : s.scale) {
    EXPECT_GE(v, 1.0f / kMostScale);
    EXPECT_LE(v, kMostScale);
  }
  layer.problem.mean_square.assign(256, 0.0f);
  for (AwqMatrix& m : layer.problem.matrices) m.mean_square.assign(256, 0.0f);
  ASSERT_OK_AND_ASSIGN(const AwqScales none, search_awq(layer.problem));
  for (const float v : none.scale) EXPECT_EQ(v, 1.0f);
}

TEST(Awq, SharedChannelsHaveOneScale) {
  Layer layer(Format::kQ4_0);
  AwqProblem& p = layer.problem;
  p.channels = 128;
  for (std::size_t j = 0; j < 256; ++j) p.channel[j] = static_cast<std::int32_t>(j % 128);
  p.mean_square.resize(128);
  ASSERT_OK_AND_ASSIGN(const AwqScales s, search_awq(p));
  EXPECT_EQ(s.scale.size(), 128u);
  EXPECT_LE(s.error, s.plain_error);
}

TEST(Awq, SameScalesForAnyNumberOfThreads) {
  const Layer layer(Format::kQ4_K);
  set_thread_count(1);
  ASSERT_OK_AND_ASSIGN(const AwqScales one, search_awq(layer.problem));
  set_thread_count(3);
  ASSERT_OK_AND_ASSIGN(const AwqScales three, search_awq(layer.problem));
  set_thread_count(0);
  EXPECT_EQ(one.scale, three.scale);
  EXPECT_EQ(one.error, three.error);
}

TEST(Awq, SizesMustFit) {
  Layer layer(Format::kQ4_0);
  AwqProblem p = layer.problem;
  p.channel.pop_back();
  EXPECT_EQ(search_awq(p).error().message, "awq: 256 inputs, 256 channels and 256 moments do not fit");
  p = layer.problem;
  p.matrices[1].w.pop_back();
  EXPECT_EQ(search_awq(p).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace narrow::quant

#include "quant/gain.h"

#include "quant/layer.h"

namespace narrow::quant {
namespace {

// Stored weights whose columns were shrunk by known factors: the gains undo it.
TEST(GainFit, UndoesColumnScales) {
  const Layer layer;
  std::vector<float> stored = layer.w, want(kColumns);
  for (std::size_t j = 0; j < want.size(); ++j) want[j] = 0.8f + 0.4f * static_cast<float>(j % 7) / 6.0f;
  for (std::size_t i = 0; i < stored.size(); ++i) stored[i] /= want[i % kColumns];
  GainFit fit(kColumns, layer.hessian, {});
  ASSERT_OK(fit.add(layer.w.data(), stored.data(), kRows));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> s, fit.solve(0));
  for (std::size_t j = 0; j < s.size(); ++j) EXPECT_NEAR(s[j], want[j], 0.03f) << j;
  // Damping keeps them nearer to 1.
  ASSERT_OK_AND_ASSIGN(const std::vector<float> damped, fit.solve(10));
  double free = 0, held = 0;
  for (std::size_t j = 0; j < s.size(); ++j) {
    free += std::abs(static_cast<double>(s[j]) - 1);
    held += std::abs(static_cast<double>(damped[j]) - 1);
  }
  EXPECT_LT(held, 0.5 * free);
}

TEST(GainFit, NothingToLearnLeavesOnes) {
  const Layer layer;
  GainFit fit(kColumns, layer.hessian, {});
  ASSERT_OK_AND_ASSIGN(std::vector<float> s, fit.solve(1));
  EXPECT_EQ(s, std::vector<float>(kColumns, 1.0f));
  ASSERT_OK(fit.add(layer.w.data(), layer.w.data(), kRows));
  ASSERT_OK_AND_ASSIGN(s, fit.solve(1));
  for (const float v : s) EXPECT_NEAR(v, 1.0f, 1e-3f);
}

TEST(BiasCorrection, IsTheMeanOutputError) {
  const std::vector<float> w = {1, 2, 3, 4}, q = {1, 1, 3, 5}, x_o = {1, 10}, x_q = {2, 10};
  EXPECT_EQ(bias_correction(w.data(), q.data(), 2, 2, x_o, x_q), (std::vector<float>{21 - 12, 43 - 56}));
}

}  // namespace
}  // namespace narrow::quant

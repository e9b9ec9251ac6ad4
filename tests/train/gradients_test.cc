#include "train/gradients.h"

#include <gtest/gtest.h>

#include "testing/testing.h"
#include "train/small_llama.h"

namespace narrow::train {
namespace {

calib::TokenWindows windows(int count, std::int64_t n) {
  calib::TokenWindows w;
  w.tokens = testing::small_text(count * n).ids;
  w.lengths.assign(static_cast<std::size_t>(count), n);
  return w;
}

std::unique_ptr<Decoder> decoder() {
  auto d = Decoder::create_random(testing::small_llama(), 3);
  EXPECT_OK(d);
  // Weights of 0.02 give answers that hardly depend on anything.
  const at::NoGradGuard off;
  for (auto& [name, w] : (*d)->weights()) {
    if (w.dim() == 2) w.mul_(name == "token_embd.weight" ? 40 : 10);
  }
  return std::move(*d);
}

at::Tensor of(const calib::OutputGradients& g, const std::string& name, std::int64_t n) {
  return at::from_blob(const_cast<float*>(g.matrices.at(name).data()), {n, n}).clone().to(at::kDouble);
}

// A constant added to every output of the last matrix changes the answers by what the gradients say: the mean
// KL divergence is d^T G d / 2. Windows of one token are weighted by nothing but the cap, in units of their
// energies.
TEST(Gradients, AreTheCurvatureOfTheDivergence) {
  const auto d = decoder();
  const std::int64_t n = d->config().n_embd;
  const calib::TokenWindows w = windows(600, 1);
  ASSERT_OK_AND_ASSIGN(const calib::OutputGradients g, output_gradients(*d, w, 1, null_progress()));
  EXPECT_EQ(g.tokens, 600);
  const at::NoGradGuard off;
  const at::Tensor tokens =
      at::tensor(std::vector<std::int64_t>(w.tokens.begin(), w.tokens.end())).unsqueeze(-1);
  at::Tensor x = d->embed(tokens);
  for (std::int64_t l = 0; l < d->config().n_layer; ++l) x = d->layer(l, x);
  const auto answers = [&](const at::Tensor& h) {
    return at::log_softmax(d->head(d->final_norm(h)).to(at::kDouble), -1);
  };
  const at::Tensor before = answers(x), p = before.exp();
  const at::Tensor metric = of(g, "blk.1.ffn_down.weight", n);
  std::vector<double> measured, said;
  for (std::int64_t i = 0; i < n; ++i) {
    at::Tensor shift = at::zeros({n});
    shift[i] = 0.02;
    measured.push_back((p * (before - answers(x + shift))).sum(-1).mean().item<double>());
    said.push_back(0.5 * 0.02 * 0.02 * metric[i][i].item<double>());
  }
  const at::Tensor a = at::tensor(measured, at::kDouble), b = at::tensor(said, at::kDouble);
  // Each token is weighted by the inverse of its energy: directions agree, the unit does not.
  const double cosine = ((a * b).sum() / (a.norm() * b.norm())).item<double>();
  EXPECT_GT(cosine, 0.95);
  EXPECT_GT((a.max() / a.min()).item<double>(), 1.5);  // else any metric would do
}

TEST(Gradients, OfEveryMatrixBeforeTheResidualStream) {
  const auto d = decoder();
  const std::int64_t n = d->config().n_embd;
  ASSERT_OK_AND_ASSIGN(const calib::OutputGradients g,
                       output_gradients(*d, windows(4, 24), 1, null_progress()));
  EXPECT_EQ(g.matrices.size(), 4u);
  for (const auto& [name, values] : g.matrices) {
    ASSERT_EQ(values.size(), static_cast<std::size_t>(n * n)) << name;
    const at::Tensor m = of(g, name, n);
    EXPECT_TRUE(at::allclose(m, m.t(), 1e-4, 1e-6)) << name;
    EXPECT_GT(m.diagonal().min().item<double>(), 0) << name;
  }
  ASSERT_OK_AND_ASSIGN(const calib::OutputGradients same,
                       output_gradients(*d, windows(4, 24), 1, null_progress()));
  EXPECT_EQ(same.matrices, g.matrices);
  ASSERT_OK_AND_ASSIGN(const calib::OutputGradients other,
                       output_gradients(*d, windows(4, 24), 2, null_progress()));
  EXPECT_NE(other.matrices, g.matrices);
}

TEST(Gradients, AModelWithoutAnswersIsNamed) {
  const auto d = decoder();
  {
    const at::NoGradGuard off;
    d->weights().at("blk.1.ffn_down.weight")[0][0] = NAN;
  }
  const auto g = output_gradients(*d, windows(2, 8), 1, null_progress());
  ASSERT_FALSE(g.ok());
  EXPECT_EQ(g.error().code, ErrorCode::kNumeric);
}

}  // namespace
}  // namespace narrow::train

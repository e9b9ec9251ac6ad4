#include "train/fused.h"

#include <gtest/gtest.h>

#include <cmath>

namespace narrow::train {
namespace {

using Inputs = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Inputs&)>;

at::Tensor random_inputs(at::IntArrayRef shape, std::uint64_t seed, double size = 1.0) {
  at::manual_seed(seed);
  return at::randn(shape, at::kDouble) * size;
}

// Value and gradients of sum(f(x) * weights) by the fp32 kernels against the same in fp64, which takes plain
// tensor operations; and the fp64 gradients against finite differences.
void check(const Function& f, const Inputs& inputs, double tolerance = 2e-5) {
  const auto run = [&](at::ScalarType type, Inputs& in) {
    for (const at::Tensor& x : inputs) in.push_back(x.to(type).detach().requires_grad_(true));
    const at::Tensor y = f(in);
    at::manual_seed(7);
    torch::autograd::backward({(y * at::randn(y.sizes(), at::kDouble).to(type)).sum()}, {});
    return y;
  };
  Inputs narrow_in, wide_in;
  const at::Tensor narrow = run(at::kFloat, narrow_in), wide = run(at::kDouble, wide_in);
  const auto close = [&](const at::Tensor& a, const at::Tensor& b) {
    const double scale = std::max(1e-3, b.abs().max().item<double>());
    return (a.to(at::kDouble) - b).abs().max().item<double>() / scale;
  };
  EXPECT_LT(close(narrow.detach(), wide.detach()), tolerance);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LT(close(narrow_in[i].grad(), wide_in[i].grad()), tolerance) << "input " << i;
  }
  at::manual_seed(7);
  const at::Tensor weights = at::randn(wide.sizes(), at::kDouble);
  const auto loss = [&](const Inputs& in) { return (f(in) * weights).sum().item<double>(); };
  constexpr double kStep = 1e-6;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Inputs moved;
    for (const at::Tensor& x : inputs) moved.push_back(x.clone());
    double* p = moved[i].data_ptr<double>();
    for (const std::int64_t e : {std::int64_t{0}, moved[i].numel() / 2, moved[i].numel() - 1}) {
      const double before = p[e];
      p[e] = before + kStep;
      const double above = loss(moved);
      p[e] = before - kStep;
      const double below = loss(moved);
      p[e] = before;
      const double want = (above - below) / (2 * kStep), got = wide_in[i].grad().data_ptr<double>()[e];
      EXPECT_NEAR(got, want, 1e-5 * std::max(1.0, std::abs(want))) << "input " << i << " element " << e;
    }
  }
}

TEST(Fused, LinearWithAndWithoutBias) {
  check([](const Inputs& x) { return train::linear(x[0], x[1], {}); },
        {random_inputs({2, 5, 12}, 1), random_inputs({7, 12}, 2)});
  check([](const Inputs& x) { return train::linear(x[0], x[1], x[2]); },
        {random_inputs({2, 5, 12}, 1), random_inputs({7, 12}, 2), random_inputs({7}, 3)});
}

TEST(Fused, MultiplyAddsWhenAsked) {
  const at::Tensor a = random_inputs({3, 4}, 1).to(at::kFloat), b = random_inputs({4, 5}, 2).to(at::kFloat);
  at::Tensor out = at::ones({3, 5});
  multiply(a, false, b, false, out, true);
  EXPECT_LT((out - (at::mm(a, b) + 1)).abs().max().item<float>(), 1e-5);
  at::Tensor turned = at::empty({3, 5});
  multiply(a.t().contiguous(), true, b.t().contiguous(), true, turned);
  EXPECT_LT((turned - at::mm(a, b)).abs().max().item<float>(), 1e-5);
}

TEST(Fused, RmsNorm) {
  for (const std::int64_t width : {8, 33, 576}) {
    check([](const Inputs& x) { return rms_norm(x[0], x[1], 1e-5); },
          {random_inputs({3, 4, width}, 1), random_inputs({width}, 2)});
  }
}

TEST(Fused, SiluMulAlsoFarFromZero) {
  check([](const Inputs& x) { return silu_mul(x[0], x[1]); },
        {random_inputs({3, 50}, 1, 20.0), random_inputs({3, 50}, 2)});
}

TEST(Fused, RopeInBothStylesAndInPart) {
  const at::Tensor turn = random_inputs({6, 4}, 9, 3.0);
  for (const bool interleaved : {false, true}) {
    for (const std::int64_t d : {8, 12}) {
      check(
          [&](const Inputs& x) {
            const at::Tensor angle = turn.to(x[0].scalar_type());
            return rope(x[0], angle.cos(), angle.sin(), interleaved);
          },
          {random_inputs({2, 6, 3, d}, 1)});
    }
  }
}

TEST(Fused, AttentionOverStretchesGroupsAndWindows) {
  struct Case {
    std::int64_t t, heads, kv;
    AttentionShape shape;
  };
  // 300 positions are three stretches of queries, the last one short.
  for (const Case& c : {Case{5, 4, 2, {0.4, 0.0, 0}}, Case{300, 3, 1, {0.3, 0.0, 0}},
                        Case{300, 2, 2, {0.3, 0.0, 40}}, Case{9, 2, 1, {0.5, 4.0, 3}}}) {
    check([&](const Inputs& x) { return attention(x[0], x[1], x[2], c.shape); },
          {random_inputs({2, c.t, c.heads, 8}, 1), random_inputs({2, c.t, c.kv, 8}, 2),
           random_inputs({2, c.t, c.kv, 8}, 3)});
  }
}

TEST(Fused, AttentionSeesNothingAhead) {
  const at::Tensor q = random_inputs({1, 200, 2, 8}, 1).to(at::kFloat),
                   k = random_inputs({1, 200, 2, 8}, 2).to(at::kFloat);
  at::Tensor v = random_inputs({1, 200, 2, 8}, 3).to(at::kFloat);
  const at::Tensor before = attention(q, k, v, {});
  v.select(1, 150).fill_(1000.0f);
  const at::Tensor after = attention(q, k, v, {});
  EXPECT_TRUE(at::equal(before.narrow(1, 0, 150), after.narrow(1, 0, 150)));
  EXPECT_FALSE(at::equal(before.narrow(1, 150, 1), after.narrow(1, 150, 1)));
}

}  // namespace
}  // namespace narrow::train

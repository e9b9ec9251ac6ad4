#include "train/loss.h"

#include <gtest/gtest.h>

#include <cmath>

namespace narrow::train {
namespace {

constexpr std::int64_t kRows = 300, kWidth = 6, kVocab = 40;  // more rows than go through the head at a time

struct Problem {
  LossInput in;
  LossOptions options;
};

Problem problem(at::ScalarType type, std::int64_t rows = kRows) {
  at::manual_seed(3);
  const auto make = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(type); };
  Problem p;
  p.in.hidden = make({rows, kWidth}).requires_grad_(true);
  p.in.head_weight = make({kVocab, kWidth}).requires_grad_(true);
  p.in.teacher = TeacherHead{make({rows, kWidth}), make({kVocab, kWidth})};
  p.in.targets = at::randint(0, kVocab, {rows}, at::kLong);
  p.options.ce_weight = 0.25;
  return p;
}

// The same loss by torch's own functions.
at::Tensor plain_loss(const Problem& p) {
  const auto shape = [&](at::Tensor y) {
    y = y * p.options.logit_scale;
    return p.options.softcap == 0 ? y : at::tanh(y / p.options.softcap) * p.options.softcap;
  };
  const double t = p.options.temperature,
               rows = p.options.rows > 0 ? p.options.rows : static_cast<double>(p.in.hidden.size(0));
  const at::Tensor y = shape(at::linear(p.in.hidden, p.in.head_weight));
  const at::Tensor ce = -at::log_softmax(y, -1).gather(-1, p.in.targets.unsqueeze(-1)).sum();
  const at::Tensor lp =
      at::log_softmax(shape(at::linear(p.in.teacher->hidden, p.in.teacher->weight)) / t, -1);
  const at::Tensor kl = (lp.exp() * (lp - at::log_softmax(y / t, -1))).sum();
  // The gradient of the KL divergence keeps its size at any temperature (Hinton et al. 2015).
  return (p.options.ce_weight * ce + p.options.kl_weight * t * t * kl) / rows;
}

void expect_gradients(const Problem& p, double tolerance) {
  const Loss loss = head_loss(p.in, p.options);
  torch::autograd::backward({loss.value}, {});
  const at::Tensor dh = p.in.hidden.grad().clone(), dw = p.in.head_weight.grad().clone();
  p.in.hidden.mutable_grad() = at::Tensor();
  p.in.head_weight.mutable_grad() = at::Tensor();
  torch::autograd::backward({plain_loss(p)}, {});
  EXPECT_LT((dh - p.in.hidden.grad()).abs().max().item<double>(),
            tolerance * p.in.hidden.grad().abs().max().item<double>());
  EXPECT_LT((dw - p.in.head_weight.grad()).abs().max().item<double>(),
            tolerance * p.in.head_weight.grad().abs().max().item<double>());
}

TEST(HeadLoss, ValueAndGradientsAsTorchComputesThem) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (const double logit_scale : {1.0, 0.5}) {
      Problem p = problem(type);
      p.options.logit_scale = logit_scale;
      const double tolerance = type == at::kFloat ? 1e-4 : 1e-10;
      EXPECT_NEAR(head_loss(p.in, p.options).value.item<double>(), plain_loss(p).item<double>(),
                  tolerance * 5);
      expect_gradients(p, tolerance);
    }
  }
}

TEST(HeadLoss, SoftcapAndTemperature) {
  Problem p = problem(at::kDouble);
  p.options.softcap = 3.0;
  p.options.temperature = 2.0;
  expect_gradients(p, 1e-10);
}

TEST(HeadLoss, RowsOfTheWholeStepDivide) {
  Problem p = problem(at::kDouble, 10);
  const double all = head_loss(p.in, p.options).value.item<double>();
  p.options.rows = 40;
  EXPECT_NEAR(head_loss(p.in, p.options).value.item<double>(), all / 4, 1e-12);
}

TEST(HeadLoss, ATeacherLikeTheStudentGivesNothing) {
  Problem p = problem(at::kFloat);
  p.in.teacher = TeacherHead{p.in.hidden.detach(), p.in.head_weight.detach()};
  p.options.ce_weight = 0;
  const Loss loss = head_loss(p.in, p.options);
  EXPECT_NEAR(loss.kl, 0, 1e-6);
  torch::autograd::backward({loss.value}, {});
  EXPECT_LT(p.in.hidden.grad().abs().max().item<double>(), 1e-7);
}

TEST(HeadLoss, StoredLikeliestTokensOfAllAreTheTeacherItself) {
  Problem p = problem(at::kDouble, 20);
  const Loss whole = head_loss(p.in, p.options);
  const at::Tensor lp = at::log_softmax(at::linear(p.in.teacher->hidden, p.in.teacher->weight), -1);
  const auto stored = [&](std::int64_t k) {
    Problem q = p;
    const auto [values, ids] = lp.topk(k, -1);
    q.in.teacher.reset();
    q.in.top_k = TeacherTopK{ids.to(at::kInt), values};
    return q;
  };
  EXPECT_NEAR(head_loss(stored(kVocab).in, p.options).kl, whole.kl, 1e-6);
  // What is not stored is one bucket: less is told apart, so the divergence is smaller, and never negative.
  const double some = head_loss(stored(5).in, p.options).kl;
  EXPECT_LT(some, whole.kl);
  EXPECT_GT(some, 0.3 * whole.kl);
}

TEST(HeadLoss, GradientsOfStoredTokensAgainstFiniteDifferences) {
  Problem p = problem(at::kDouble, 8);
  const auto [values, ids] =
      at::log_softmax(at::linear(p.in.teacher->hidden, p.in.teacher->weight), -1).topk(6, -1);
  p.in.teacher.reset();
  p.in.top_k = TeacherTopK{ids.to(at::kInt), values};
  torch::autograd::backward({head_loss(p.in, p.options).value}, {});
  const at::NoGradGuard off;
  for (const std::int64_t e : {0, 11, 47}) {
    double* x = p.in.hidden.data_ptr<double>();
    const double before = x[e], step = 1e-6;
    x[e] = before + step;
    const double above = head_loss(p.in, p.options).value.item<double>();
    x[e] = before - step;
    const double below = head_loss(p.in, p.options).value.item<double>();
    x[e] = before;
    EXPECT_NEAR(p.in.hidden.grad().data_ptr<double>()[e], (above - below) / (2 * step), 1e-7);
  }
}

}  // namespace
}  // namespace narrow::train

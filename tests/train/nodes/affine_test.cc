#include "train/nodes/affine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "train/nodes/random.h"

namespace narrow::train {
namespace {

using testing::same_bits;

at::Tensor uneven(std::int64_t n, std::int64_t k, std::uint64_t seed) {
  return testing::random(n, k, seed, 1, 0.3f);
}

using formats::AffineMapping;
using formats::AffineScope;

at::Tensor dequantized(const formats::AffineQuantized& q) {
  at::Tensor y = at::empty({q.rows, q.cols}, at::kFloat);
  formats::affine_dequantize(q, y.data_ptr<float>());
  return y;
}

// f(spec) over bits, mappings and scopes.
template <class F>
void for_specs(const F& f) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const AffineMapping mapping :
         {AffineMapping::kSymmetric, AffineMapping::kZeroPoint, AffineMapping::kMin}) {
      for (const AffineScope scope : {AffineScope::kTensor, AffineScope::kRow, AffineScope::kGroup}) {
        formats::AffineSpec spec;
        spec.bits = bits;
        spec.mapping = mapping;
        spec.scope = scope;
        spec.group = 16;
        f(spec);
      }
    }
  }
}

TEST(AffineNode, DynamicIsQuantizeAndDequantize) {
  const at::Tensor x = uneven(5, 40, 1);
  for_specs([&](formats::AffineSpec spec) {
    for (const auto range : {formats::AffineRange::kAbsMax, formats::AffineRange::kLeastSquares}) {
      spec.range = range;
      const auto node = *AffineNode::create(0, 40, {.spec = spec});
      SCOPED_TRACE(node->describe());
      const auto want = formats::affine_quantize(x.data_ptr<float>(), 5, 40, spec);
      ASSERT_TRUE(want.ok());
      EXPECT_TRUE(same_bits(node->apply(x), dequantized(*want)));
      const auto got = node->quantize(x);
      ASSERT_TRUE(got.ok());
      EXPECT_EQ(got->codes, want->codes);
      EXPECT_EQ(got->scales, want->scales);
      EXPECT_EQ(got->zero_points, want->zero_points);
      EXPECT_EQ(got->mins, want->mins);
    }
  });
}

TEST(AffineNode, ObservedAndLearnedRangesGiveWhatTheyStore) {
  const at::Tensor x = uneven(5, 40, 2), later = 2 * uneven(5, 40, 3);
  for_specs([&](const formats::AffineSpec& spec) {
    for (const AffineMode mode : {AffineMode::kObserved, AffineMode::kLearned}) {
      const auto node = *AffineNode::create(5, 40, {.spec = spec, .mode = mode});
      SCOPED_TRACE(node->describe());
      node->set_phase(Phase::kOn);
      node->apply(x);  // starts from it
      node->set_phase(Phase::kFrozen);
      const auto stored = node->quantize(later);
      ASSERT_TRUE(stored.ok());
      EXPECT_TRUE(same_bits(node->apply(later).detach(), dequantized(*stored)));
      if (mode == AffineMode::kObserved) {
        const auto first = formats::affine_quantize(x.data_ptr<float>(), 5, 40, spec);
        EXPECT_EQ(stored->scales, first->scales);
      }
    }
  });
}

TEST(AffineNode, ObserverAveragesAndFreezes) {
  formats::AffineSpec spec;
  spec.scope = AffineScope::kTensor;
  const auto node = *AffineNode::create(0, 4, {.spec = spec, .mode = AffineMode::kObserved, .momentum = 0.5});
  node->set_phase(Phase::kObserve);
  const at::Tensor x = at::tensor({-1.0f, 0.0f, 1.0f, 2.0f});
  EXPECT_TRUE(node->apply(x).is_same(x));
  node->apply(3 * x);
  EXPECT_EQ(node->buffers()[0].tensor[0][0].item<float>(), -2.0f);
  EXPECT_EQ(node->buffers()[0].tensor[0][1].item<float>(), 4.0f);
  node->set_phase(Phase::kFrozen);
  EXPECT_EQ(node->apply(100 * x).max().item<float>(), 4.0f);
  EXPECT_EQ(node->buffers()[0].tensor[0][1].item<float>(), 4.0f);
  EXPECT_EQ(node->buffers()[1].tensor.item<std::int64_t>(), 2);
}

TEST(AffineNode, LearnedScalesStartAsLsqAndStayPositive) {
  formats::AffineSpec spec;
  spec.bits = 4;
  at::Tensor x = uneven(2, 8, 4);
  x[1].zero_();
  const auto node = *AffineNode::create(2, 8, {.spec = spec, .mode = AffineMode::kLearned});
  EXPECT_TRUE(node->apply(x).isfinite().all().item<bool>());
  const at::Tensor scale = node->parameters()[0].tensor;
  EXPECT_NEAR(scale[0].item<double>(), 2 * x[0].abs().mean().item<double>() / std::sqrt(7.0), 1e-6);
  EXPECT_GT(scale[1].item<float>(), 0.0f);
  {
    const at::NoGradGuard no_grad;
    scale.fill_(-1);
  }
  const auto stored = node->quantize(x);
  ASSERT_TRUE(stored.ok());
  EXPECT_GT(stored->scales[0], 0.0f);
}

TEST(AffineNode, NaNIsNotHidden) {
  at::Tensor x = uneven(2, 8, 5);
  x[0][3] = NAN;
  for (const AffineMode mode : {AffineMode::kDynamic, AffineMode::kLearned}) {
    const auto node = *AffineNode::create(2, 8, {.mode = mode});
    if (mode == AffineMode::kLearned) {
      EXPECT_TRUE(node->set_range({1, 1}, {}).ok());
    }
    EXPECT_TRUE(std::isnan(node->apply(x)[0][3].item<float>()));
    EXPECT_EQ(node->quantize(x).error().code, ErrorCode::kNumeric);
  }
}

TEST(AffineNode, RefusesWhatDoesNotFit) {
  EXPECT_EQ(AffineNode::create(0, 8, {.mode = AffineMode::kLearned}).error().message,
            "affine: learned ranges of tokens' activations are per tensor; a range per token is dynamic");
  formats::AffineSpec spec;
  spec.bits = 9;
  EXPECT_FALSE(AffineNode::create(0, 8, {.spec = spec}).ok());
  const auto node = *AffineNode::create(2, 8, {.mode = AffineMode::kLearned});
  EXPECT_FALSE(node->set_range({1}, {}).ok());
  EXPECT_FALSE(node->set_range({1, -1}, {}).ok());
}

}  // namespace
}  // namespace narrow::train

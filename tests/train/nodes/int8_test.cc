// Int8 weights and activations against the engine: the codes that it stores and the rows that it multiplies.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "kernels/dispatch.h"
#include "ops/activations.h"
#include "train/nodes/activation.h"
#include "train/nodes/int8_row_weight.h"
#include "train/nodes/random.h"

namespace narrow::train {
namespace {

using testing::random;
using testing::same_bits;

std::shared_ptr<Int8Activation> activation(std::int64_t k, const ActivationOptions& options) {
  auto node = Int8Activation::create(k, options);
  EXPECT_TRUE(node.ok()) << node.error().message;
  return *node;
}

// What the engine multiplies, outlier columns put back.
at::Tensor engine(const at::Tensor& x, const Int8Activation& node) {
  ops::Forms forms;
  forms.simulated = true;
  forms.scheme = node.scheme();
  forms.outliers = node.options().outliers.data();
  forms.n_outliers = static_cast<std::int64_t>(node.options().outliers.size());
  ops::Activations rows;
  rows.assign({x.data_ptr<float>(), x.size(0), x.size(1)}, forms);
  at::Tensor out = at::empty_like(x);
  for (std::int64_t r = 0; r < x.size(0); ++r) {
    float* to = out.data_ptr<float>() + r * x.size(1);
    std::copy_n(rows.simulated().row(r), x.size(1), to);
    for (std::int64_t i = 0; i < forms.n_outliers; ++i) to[forms.outliers[i]] = rows.outliers().row(r)[i];
  }
  return out;
}

TEST(Int8Activation, EqualsTheEnginesRows) {
  at::Tensor x = random(7, 100, 1);
  x[3].zero_();
  x[4][5] = 1e-42f;
  for (const ActivationRange range : {ActivationRange::kToken, ActivationRange::kFixed,
                                      ActivationRange::kLearned, ActivationRange::kObserved}) {
    for (const bool asymmetric : {false, true}) {
      for (const bool outliers : {false, true}) {
        ActivationOptions options{.range = range, .asymmetric = asymmetric};
        if (range != ActivationRange::kToken) options.scale = 0.0123f;
        if (range != ActivationRange::kToken && asymmetric) options.zero = -17;
        if (range == ActivationRange::kFixed) options.scale = kernels::dense_int8_scale(options.scale);
        if (outliers) options.outliers = {0, 31, 99};
        const auto node = activation(100, options);
        SCOPED_TRACE(node->describe());
        const at::NoGradGuard no_grad;
        const at::Tensor y = node->apply(x.view({7, 1, 100}));
        EXPECT_EQ(y.dim(), 3);
        EXPECT_TRUE(same_bits(y.view({7, 100}), engine(x, *node)));
        EXPECT_FALSE(at::equal(y.view({7, 100}), x));
        // fp64 follows the same rules.
        const at::Tensor fine = node->apply(x.to(at::kDouble)).to(at::kFloat);
        EXPECT_LT((fine - y.view({7, 100})).abs().mean().item<float>(), 1e-4f);
      }
    }
  }
}

TEST(Int8Activation, BlocksAreTheKernels) {
  const at::Tensor x = random(3, 96, 2);
  const auto node = activation(96, {.range = ActivationRange::kBlock});
  ops::Forms forms;
  forms.blocks = true;
  ops::Activations rows;
  rows.assign({x.data_ptr<float>(), 3, 96}, forms);
  const at::Tensor y = node->apply(x);
  for (std::int64_t i = 0; i < 3 * 96; ++i) {
    const float want = rows.blocks().scale[i / 32] * static_cast<float>(rows.blocks().q[i]);
    ASSERT_EQ(y.data_ptr<float>()[i], want) << i;
  }
}

TEST(Int8Activation, NaNIsNotHidden) {
  at::Tensor x = random(2, 64, 3);
  x[1][3] = NAN;
  for (const ActivationRange range :
       {ActivationRange::kToken, ActivationRange::kBlock, ActivationRange::kFixed}) {
    const auto node = activation(64, {.range = range, .scale = 0.25f});
    const at::Tensor y = node->apply(x);
    EXPECT_TRUE(std::isnan(y[1].sum().item<float>()));
    EXPECT_FALSE(std::isnan(y[0].sum().item<float>()));
  }
}

TEST(Int8Activation, ObserverMovesSlowlyAndFreezes) {
  const auto node = activation(64, {.range = ActivationRange::kObserved, .momentum = 0.25});
  node->set_phase(Phase::kObserve);
  at::Tensor x = at::zeros({2, 64});
  x[0][0] = 4;
  x[1][1] = -2;
  EXPECT_TRUE(node->apply(x).is_same(x));
  EXPECT_FLOAT_EQ(node->scheme().scale, kernels::dense_int8_scale(4.0f / 127));
  node->apply(2 * x);  // largest: 4 + 0.25 (8 - 4)
  EXPECT_FLOAT_EQ(node->scheme().scale, kernels::dense_int8_scale(5.0f / 127));
  node->set_phase(Phase::kOn);
  {
    const at::NoGradGuard no_grad;
    node->apply(4 * x);
    EXPECT_FLOAT_EQ(node->scheme().scale, kernels::dense_int8_scale(5.0f / 127));
  }
  EXPECT_EQ(node->apply(4 * x)[0][0].item<float>(), 127 * kernels::dense_int8_scale(5.0f / 127));
  EXPECT_FLOAT_EQ(node->scheme().scale, kernels::dense_int8_scale(7.75f / 127));
  node->set_phase(Phase::kFrozen);
  node->apply(100 * x);
  EXPECT_FLOAT_EQ(node->scheme().scale, kernels::dense_int8_scale(7.75f / 127));
  // The observed range is a checkpoint's.
  const auto other = activation(64, {.range = ActivationRange::kObserved});
  for (std::size_t i = 0; i < 2; ++i) other->buffers()[i].tensor.copy_(node->buffers()[i].tensor);
  EXPECT_EQ(other->scheme().scale, node->scheme().scale);
}

TEST(Int8Activation, LearnedRangeStartsFromTheFirstRows) {
  const at::Tensor x = random(4, 64, 4).abs() - 0.5;
  for (const bool asymmetric : {false, true}) {
    const auto node = activation(64, {.range = ActivationRange::kLearned, .asymmetric = asymmetric});
    EXPECT_EQ(node->scheme().scale, 0.0f);
    const at::Tensor y = node->apply(x);
    EXPECT_TRUE(y.requires_grad());
    EXPECT_LE((y - x).abs().max().item<float>(), 0.51f * node->scheme().scale);
    EXPECT_EQ(node->parameters().size(), asymmetric ? 2u : 1u);
    EXPECT_TRUE(same_bits(y.detach(), engine(x, *node)));
  }
}

TEST(Int8Activation, ScaleStaysPositive) {
  const auto node = activation(64, {.range = ActivationRange::kLearned, .scale = 0.5f});
  {
    const at::NoGradGuard no_grad;
    node->parameters()[0].tensor.fill_(-1);
  }
  EXPECT_GT(node->scheme().scale, 0.0f);
  EXPECT_TRUE(node->apply(random(1, 64, 5)).isfinite().all().item<bool>());
}

TEST(Int8Activation, RefusesWhatDoesNotFit) {
  EXPECT_EQ(Int8Activation::create(33, {.range = ActivationRange::kBlock}).error().message,
            "int8 activations: rows of 33 have no whole groups of 32");
  EXPECT_EQ(Int8Activation::create(64, {.range = ActivationRange::kFixed}).error().code, ErrorCode::kNumeric);
  EXPECT_FALSE(Int8Activation::create(64, {.zero = 3}).ok());
  EXPECT_FALSE(Int8Activation::create(64, {.outliers = {64}}).ok());
  EXPECT_FALSE(Int8Activation::create(65537, {.asymmetric = true}).ok());
}

struct Start {
  std::vector<std::int8_t> codes;
  std::vector<float> scales;
};

Start start_of(const at::Tensor& w) {
  Start s;
  for (std::int64_t r = 0; r < w.size(0); ++r) {
    const float scale = kernels::dense_int8_scale(w[r].abs().max().item<float>() / 127);
    s.scales.push_back(scale);
    for (std::int64_t i = 0; i < w.size(1); ++i) {
      s.codes.push_back(scale > 0 ? static_cast<std::int8_t>(std::nearbyint(w[r][i].item<float>() / scale))
                                  : std::int8_t{0});
    }
  }
  return s;
}

TEST(Int8RowWeight, StartsFromItsCodesAndStoresWhatItApplies) {
  at::Tensor x = random(5, 77, 6, 0.1f);
  x[2].zero_();
  const Start s = start_of(x);
  const at::Tensor reference = x + random(5, 77, 7, 0.01f);
  for (const bool learned : {false, true}) {
    for (const bool outliers : {false, true}) {
      Int8RowOptions options{.learned = learned};
      if (outliers) options.outliers = {1, 76};
      auto node = Int8RowWeight::create(s.codes, s.scales, 5, 77, options);
      ASSERT_TRUE(node.ok()) << node.error().message;
      SCOPED_TRACE((*node)->describe());
      const at::Tensor latent = (*node)->start_latent(reference);
      EXPECT_LT((latent - reference).abs().sum().item<float>(), (x - reference).abs().sum().item<float>());
      const at::Tensor y = (*node)->apply(latent).detach();
      const auto bytes = (*node)->encode(latent);
      ASSERT_TRUE(bytes.ok());
      const at::Tensor scales = (*node)->stored_scales(), columns = (*node)->stored_outliers(latent);
      for (std::int64_t r = 0; r < 5; ++r) {
        for (std::int64_t i = 0; i < 77; ++i) {
          const auto at = static_cast<std::size_t>(r * 77 + i);
          const auto code = static_cast<std::int8_t>((*bytes)[at]);
          const bool out = outliers && (i == 1 || i == 76);
          if (learned && r == 2) continue;  // a scale of 0 becomes the least one
          EXPECT_EQ(code, out ? 0 : s.codes[at]);
          const float stored = scales.data_ptr<float>()[r] * static_cast<float>(code);
          EXPECT_EQ(y[r][i].item<float>(), out ? columns[r][i == 1 ? 0 : 1].item<float>() : stored);
          if (out) {
            EXPECT_EQ(columns[r][i == 1 ? 0 : 1].item<float>(), reference[r][i].to(at::kHalf).item<float>());
          }
        }
      }
    }
  }
}

TEST(Int8RowWeight, OutlierColumnsHaveGradientsOfTheirOwn) {
  const at::Tensor x = random(2, 64, 8, 0.1f);
  const Start s = start_of(x);
  auto node = Int8RowWeight::create(s.codes, s.scales, 2, 64, {.learned = true, .outliers = {3}});
  ASSERT_TRUE(node.ok());
  at::Tensor w = x.clone();
  w[0][3] = 50;  // far beyond the range
  w[0][4] = 50;
  w.requires_grad_(true);
  (*node)->apply(w).sum().backward();
  EXPECT_EQ(w.grad()[0][3].item<float>(), 1.0f);
  EXPECT_EQ(w.grad()[0][4].item<float>(), 0.0f);
  EXPECT_EQ(w.grad()[1][4].item<float>(), 1.0f);
  EXPECT_TRUE((*node)->parameters()[0].tensor.grad().defined());
}

}  // namespace
}  // namespace narrow::train

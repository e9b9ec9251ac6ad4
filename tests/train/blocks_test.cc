#include "train/blocks.h"

#include <gtest/gtest.h>

#include "runtime/toy_source.h"
#include "testing/testing.h"
#include "train/prepare.h"

namespace narrow::train {
namespace {

using runtime::ToySource;

Dataset text() {
  Document d;
  for (std::int32_t i = 0; i < 2000; ++i) d.ids.push_back((i * i + 3 * i) % 11);
  DatasetOptions o;
  o.n_ctx = 32;
  o.n_vocab = 11;
  o.validation_windows = 1;
  return Dataset::create(std::span(&d, 1), o).value();
}

TEST(Blocks, EveryLayerComesNearerToItsFullPrecisionOutput) {
  const ToySource reference(32), start(32, Format::kQ4_0);
  const Dataset data = text();
  ASSERT_OK_AND_ASSIGN(const auto teacher, Decoder::create(reference));
  ASSERT_OK_AND_ASSIGN(const auto student, Decoder::create(reference));
  ASSERT_OK(prepare(*student, start, {}));
  BlockOptions options;
  options.steps = 40;
  options.windows = 8;
  options.rates.weights = 2e-3;
  ASSERT_OK_AND_ASSIGN(const std::vector<BlockLoss> losses,
                       train_blocks(*student, *teacher, data, options, null_progress()));
  ASSERT_EQ(losses.size(), 2u);
  for (const BlockLoss& l : losses) EXPECT_LT(l.after, 0.9 * l.before) << l.layer;
}

TEST(Blocks, OfOneSeedTheSame) {
  const ToySource reference(32), start(32, Format::kQ4_0);
  const Dataset data = text();
  std::vector<at::Tensor> weights;
  for (int run = 0; run < 2; ++run) {
    ASSERT_OK_AND_ASSIGN(const auto teacher, Decoder::create(reference));
    ASSERT_OK_AND_ASSIGN(const auto student, Decoder::create(reference));
    ASSERT_OK(prepare(*student, start, {}));
    BlockOptions options;
    options.steps = 5;
    options.windows = 4;
    ASSERT_OK(train_blocks(*student, *teacher, data, options, null_progress()));
    weights.push_back(student->weight("blk.1.ffn_down.weight").detach().clone());
  }
  EXPECT_TRUE(at::equal(weights[0], weights[1]));
}

}  // namespace
}  // namespace narrow::train

#include "train/prepare.h"

#include <gtest/gtest.h>

#include "formats/grid.h"
#include "runtime/toy_source.h"
#include "testing/testing.h"

namespace narrow::train {
namespace {

using runtime::ToySource;

at::Tensor tokens() { return at::tensor({1, 5, 3, 7, 2, 9, 4, 4, 0, 10}, at::kLong).view({1, 10}); }

TEST(Prepare, TheStudentIsTheFileBitForBitInEveryFormat) {
  const at::NoGradGuard off;
  const ToySource reference(128);
  int formats = 0;
  for (const FormatInfo& f : all_formats()) {
    if (formats::grid_codec(f.format) == nullptr) continue;
    SCOPED_TRACE(f.name);
    ++formats;
    const ToySource start(128, f.format);
    ASSERT_OK_AND_ASSIGN(const auto plain, Decoder::create(start));
    for (const bool learn : {true, false}) {
      ASSERT_OK_AND_ASSIGN(const auto student, Decoder::create(reference));
      PrepareOptions options;
      options.learn_scales = learn;
      options.is_frozen = [](const std::string&) { return false; };
      ASSERT_OK(prepare(*student, start, options));
      for (const auto& [name, w] : plain->weights()) {
        ASSERT_TRUE(at::equal(student->effective(name).detach(), w)) << name;
      }
      EXPECT_TRUE(at::equal(student->logits(tokens()), plain->logits(tokens())));
      // Latent weights are not the file's: they lean to the reference.
      EXPECT_FALSE(at::equal(student->weight("blk.0.attn_q.weight"), plain->weight("blk.0.attn_q.weight")));
    }
  }
  EXPECT_GE(formats, 12);
}

// A file whose rows and columns were scaled before it was quantized: latent weights lean to the reference of
// its scales.
TEST(Prepare, LatentWeightsFollowScalesOfTheFile) {
  const at::NoGradGuard off;
  const char* name = "blk.0.ffn_up.weight";
  const ToySource reference(128), start(128, Format::kQ4_0);
  ASSERT_OK_AND_ASSIGN(const auto plain, Decoder::create(reference));
  ASSERT_OK_AND_ASSIGN(const auto scaled, Decoder::create(reference));
  at::Tensor w = scaled->weight(name);
  w.mul_(at::linspace(0.5, 3.0, w.size(1)));
  w.mul_(at::linspace(2.0, 0.7, w.size(0)).unsqueeze(1));
  ASSERT_OK(prepare(*plain, start, {}));
  ASSERT_OK(prepare(*scaled, start, {}));
  const at::Tensor value = plain->effective(name), latent = plain->weight(name), other = scaled->weight(name);
  EXPECT_TRUE(at::equal(value, scaled->effective(name)));
  const double lean = (latent - value).abs().mean().item<double>();
  EXPECT_GT(lean, 0);
  EXPECT_LT((other - latent).abs().mean().item<double>(), 0.05 * lean);
}

TEST(Prepare, TheGraphSaysWhatIsWhere) {
  const ToySource reference(128), start(128, Format::kQ4_0);
  ASSERT_OK_AND_ASSIGN(const auto student, Decoder::create(reference));
  PrepareOptions options;
  options.activations = Activations::kEngine;
  options.cache_keys = options.cache_values = Format::kQ8_0;
  ASSERT_OK_AND_ASSIGN(const std::vector<GraphRow> rows, prepare(*student, start, options));
  EXPECT_EQ(rows.size(), start.tensors().size());
  for (const GraphRow& r : rows) {
    SCOPED_TRACE(r.name);
    const bool matrix = r.shape.find(',') != std::string::npos, embedding = r.name == "token_embd.weight";
    EXPECT_EQ(r.weight.find("q4_0") != std::string::npos, matrix);
    EXPECT_EQ(r.weight.find("learned") != std::string::npos, matrix && !embedding);
    EXPECT_EQ(!r.input.empty(), matrix);
    EXPECT_EQ(r.trained, !embedding);
    EXPECT_EQ(student->weight(r.name).requires_grad(), !embedding);
  }
  // One node for all that share an input.
  const auto& inputs = student->input_nodes();
  EXPECT_EQ(inputs.at("blk.0.attn_q.weight"), inputs.at("blk.0.attn_v.weight"));
  EXPECT_EQ(inputs.at("blk.1.ffn_gate.weight"), inputs.at("blk.1.ffn_up.weight"));
  EXPECT_NE(inputs.at("blk.0.attn_q.weight"), inputs.at("blk.1.attn_q.weight"));
  EXPECT_EQ(student->cache_nodes().size(), 2u);
}

TEST(Prepare, WhatIsTrained) {
  const ToySource reference(128), start(128, Format::kQ4_K);
  for (const TrainWhat what : {TrainWhat::kAll, TrainWhat::kScales, TrainWhat::kLora}) {
    ASSERT_OK_AND_ASSIGN(const auto student, Decoder::create(reference));
    PrepareOptions options;
    options.what = what;
    ASSERT_OK(prepare(*student, start, options));
    EXPECT_EQ(student->weight("blk.0.ffn_up.weight").requires_grad(), what == TrainWhat::kAll);
    EXPECT_TRUE(student->weight("blk.0.ffn_norm.weight").requires_grad());
    EXPECT_FALSE(student->weight_nodes().at("blk.0.ffn_up.weight")->parameters().empty());
    EXPECT_TRUE(student->weight_nodes().at("token_embd.weight")->parameters().empty());
  }
}

TEST(Prepare, AnotherModelsFileIsNamed) {
  const ToySource reference(128), narrower(64, Format::kQ8_0);
  ASSERT_OK_AND_ASSIGN(const auto student, Decoder::create(reference));
  const auto rows = prepare(*student, narrower, {});
  ASSERT_FALSE(rows.ok());
  EXPECT_EQ(rows.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(rows.error().message.find("is it the same model?"), std::string::npos);
  ToySource shorter(128, Format::kQ8_0);
  shorter.remove("blk.1.attn_k.weight");
  ASSERT_OK_AND_ASSIGN(const auto second, Decoder::create(reference));
  const auto missing = prepare(*second, shorter, {});
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("blk.1.attn_k.weight"), std::string::npos);
}

}  // namespace
}  // namespace narrow::train

// Models from nothing: the embedded model's tokenizer, and what pretraining writes.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "model/source.h"
#include "narrow/train.h"
#include "pipeline/tokenizer.h"
#include "recipe/fresh_model.h"
#include "testing/testing.h"

namespace narrow::recipe {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

fs::path embedded() { return fs::path(NARROW_MODELS) / "tales-4m"; }

const char* const kTexts[] = {
    "Once upon a time, there was a little car named Beep.",
    "  two spaces,\ttabs\nand\n\nlines ",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune",
    "ROMEO:\nBut, soft! what light through yonder window breaks?",
    "1234567 + 89 = 1234656",
    "Grüße, 世界! \xF0\x9F\x8C\x8D naïve café",
    "",
    "x",
};

TEST(Pretrain, TheEmbeddedTokenizerGivesSentencePiecesIds) {
  NARROW_REQUIRE_PYTHON();
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, pipeline::open_tokenizer(embedded() / "tokenizer.model", 2048));
  EXPECT_EQ(tokenizer->vocab_size(), 2048u);
  nlohmann::json texts = nlohmann::json::array();
  for (const char* t : kTexts) texts.push_back(t);
  const std::string out = testing::run_python(
      "import json, sys, sentencepiece\n"
      "p = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])\n"
      "print(json.dumps([p.encode(t) for t in json.loads(sys.argv[2])]))",
      {(embedded() / "tokenizer.model").string(), texts.dump()});
  const nlohmann::json want = nlohmann::json::parse(out);
  for (std::size_t i = 0; i < std::size(kTexts); ++i) {
    ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->encode(kTexts[i], {false, false}));
    EXPECT_EQ(ids, want[i].get<std::vector<std::int32_t>>()) << kTexts[i];
  }
}

TEST(Pretrain, AFreshModelIsWhatItsConfigSays) {
  ASSERT_OK_AND_ASSIGN(const FreshModel m, fresh_model(embedded(), {}));
  EXPECT_EQ(m.source->config().n_vocab, 2048);
  EXPECT_EQ(m.source->config().n_layer, 4);
  std::int64_t parameters = 0;
  for (const TensorInfo& t : m.source->tensors()) parameters += t.shape.elements();
  EXPECT_GT(parameters, 2'000'000);
  EXPECT_LT(parameters, 4'000'000);
  // A vocabulary that the model has no rows for.
  const TempDir dir;
  std::ifstream in(embedded() / "config.json");
  nlohmann::json config = nlohmann::json::parse(in);
  config["vocab_size"] = 1000;
  testing::write_file(dir / "config.json", config.dump());
  const auto small = fresh_model(dir / "config.json", embedded());
  ASSERT_FALSE(small.ok());
  EXPECT_NE(small.error().message.find("2048 tokens"), std::string::npos) << small.error().message;
}

// A few steps of a tiny shape: the loss falls, and every kind of output is a model that narrow opens.
TEST(Pretrain, WritesAModelThatOpens) {
  const TempDir dir;
  std::ifstream in(embedded() / "config.json");
  nlohmann::json config = nlohmann::json::parse(in);
  config["hidden_size"] = 64;
  config["intermediate_size"] = 96;
  config["num_hidden_layers"] = 2;
  config["num_attention_heads"] = 2;
  config["num_key_value_heads"] = 1;
  config["head_dim"] = 32;
  testing::write_file(dir / "config.json", config.dump());
  std::string text;
  for (int i = 0; i < 300; ++i) text += "The cat sat on the mat, and the dog sat on the log. ";
  testing::write_file(dir / "text.txt", text);
  PretrainOptions o;
  o.config = dir / "config.json";
  o.tokenizer = embedded() / "tokenizer.model";
  o.loop.texts = {dir / "text.txt"};
  o.loop.n_ctx = 64;
  o.loop.batch_tokens = 256;
  o.loop.validation_windows = 2;
  o.loop.steps = 30;
  o.loop.lr = 1e-2;
  o.loop.validate_every = 0;
  for (const char* name : {"folder", "model.gguf"}) {
    SCOPED_TRACE(name);
    o.output = dir / name;
    ASSERT_OK_AND_ASSIGN(const TrainReport report, pretrain(o));
    ASSERT_EQ(report.validations.size(), 2u);
    EXPECT_NEAR(report.validations[0].ce, std::log(2048.0), 0.3);
    EXPECT_LT(report.validations[1].ce, 2.5);
    EXPECT_FALSE(fs::exists(o.output.string() + ".checkpoint"));
    ASSERT_OK_AND_ASSIGN(const auto made, model::ModelSource::open(o.output));
    const auto q = made->find("blk.1.attn_q.weight");
    ASSERT_TRUE(q);
    EXPECT_EQ(made->tensors()[*q].format, Format::kBF16);
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, pipeline::open_tokenizer(o.output, 2048));
    ASSERT_OK_AND_ASSIGN(const auto original, pipeline::open_tokenizer(embedded() / "tokenizer.model", 2048));
    for (const char* t : kTexts) {
      ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->encode(t));
      ASSERT_OK_AND_ASSIGN(const auto want, original->encode(t));
      EXPECT_EQ(ids, want) << t;
    }
  }
  o.output = dir / "other.gguf";
  o.loop.steps = 0;
  const auto none = pretrain(o);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().message.find("--steps"), std::string::npos) << none.error().message;
}

}  // namespace
}  // namespace narrow::recipe

// Quantization-aware training from the options to the file, on a tiny model.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model/source.h"
#include "narrow/train.h"
#include "pipeline/quantize.h"
#include "recipe/run.h"
#include "recipe/training_text.h"
#include "runtime/session.h"
#include "testing/testing.h"
#include "train/prepare.h"

namespace narrow::recipe {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

std::shared_ptr<const model::ModelSource> open(const fs::path& path) {
  auto source = model::ModelSource::open(path);
  EXPECT_OK(source);
  return source.ok() ? *source : nullptr;
}

// The tiny model with a tokenizer of its vocabulary's size.
class QatTest : public ::testing::Test {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    source_ = testing::shared_data() / "tiny-models" / "llama";
    if (!fs::exists(source_ / "tokenizer.json")) {
      // Weights and settings of one folder, the tokenizer of another.
      fs::create_directories(dir_ / "model");
      for (const auto& e : fs::directory_iterator(source_))
        fs::copy_file(e.path(), (dir_ / "model") / e.path().filename());
      for (const auto& e : fs::directory_iterator(testing::shared_data() / "tokenizers" / "tiny-test")) {
        if (!fs::exists((dir_ / "model") / e.path().filename())) {
          fs::copy_file(e.path(), (dir_ / "model") / e.path().filename());
        }
      }
      source_ = dir_ / "model";
    }
    text_ = dir_ / "text.txt";
    std::string text =
        testing::read_file(testing::shared_data() / "text" / "tinystories.txt").substr(0, 20000);
    testing::write_file(text_, text);
  }

  QatOptions options(const std::string& type) {
    QatOptions o;
    o.source = source_;
    o.output = dir_ / (type + ".gguf");
    o.type = type;
    o.method = "rtn";
    o.loop.texts = {text_};
    o.loop.n_ctx = 32;
    o.loop.batch_tokens = 128;
    o.loop.validation_windows = 4;
    o.loop.steps = 30;
    o.loop.lr = 1e-3;
    o.loop.validate_every = 0;
    return o;
  }

  // Logits of the first tokens by the engine.
  std::vector<float> engine(const fs::path& file, runtime::Compute compute,
                            const std::vector<std::int32_t>& tokens) {
    const auto source = open(file);
    runtime::LoadOptions load;
    load.compute = compute;
    auto model = runtime::LoadedModel::load(source, load);
    EXPECT_OK(model);
    runtime::SessionOptions session;
    session.cache_keys = session.cache_values = Format::kF32;
    auto s = runtime::Session::create(*model, session);
    EXPECT_OK(s);
    std::vector<float> logits;
    EXPECT_OK((*s)->forward(tokens, runtime::LogitRows::kAll, logits));
    return logits;
  }

  // What training would compute with this file: its nodes, frozen.
  at::Tensor simulated(const fs::path& file, train::Activations activations,
                       const std::vector<std::int32_t>& tokens) {
    const at::NoGradGuard off;
    const auto reference = open(source_), start = open(file);
    auto student = train::Decoder::create(*reference);
    EXPECT_OK(student);
    train::PrepareOptions options;
    options.activations = activations;
    EXPECT_OK(train::prepare(**student, *start, options));
    at::Tensor ids = at::empty({1, static_cast<std::int64_t>(tokens.size())}, at::kLong);
    for (std::size_t i = 0; i < tokens.size(); ++i) ids.data_ptr<std::int64_t>()[i] = tokens[i];
    return (*student)->logits(ids)[0].contiguous();
  }

  // The same tokens, and logits within the tolerance. `edges`: rounds activations, so that a last bit in a
  // sum may turn a code, and the rest of that token's numbers and what attends to it; most tokens have none.
  void expect_same_logits(const at::Tensor& want, const std::vector<float>& got, double tolerance,
                          bool edges = false) {
    ASSERT_EQ(static_cast<std::size_t>(want.numel()), got.size());
    const at::Tensor engine = at::from_blob(const_cast<float*>(got.data()), want.sizes(), at::kFloat);
    const at::Tensor apart = (engine - want).abs().amax(-1);
    EXPECT_LT(apart.max().item<double>(), edges ? 100 * tolerance : tolerance);
    const auto off = (apart > tolerance).sum().item<std::int64_t>();
    EXPECT_LE(off, edges ? want.size(0) / 2 : 0);
    EXPECT_TRUE(at::equal(engine.argmax(-1), want.argmax(-1)));
  }

  TempDir dir_;
  fs::path source_, text_;
};

const std::vector<std::int32_t> kTokens = {3, 17, 200, 45, 9, 301, 77, 64, 12, 5, 5, 250};

TEST_F(QatTest, TheFileIsNearerAndIsWhatWasTrained) {
  for (const std::string type : {"q4_0", "q8_0", "mxfp4"}) {
    SCOPED_TRACE(type);
    QatOptions o = options(type);
    o.loop.report = dir_ / (type + ".html");
    o.loop.metrics = dir_ / (type + ".jsonl");
    ASSERT_OK_AND_ASSIGN(const QatReport r, qat(o));
    ASSERT_EQ(r.steps.size(), 30u);
    ASSERT_EQ(r.validations.size(), 2u);
    if (type != "q8_0") {
      EXPECT_LT(r.validations.back().kl, 0.9 * r.validations.front().kl);
    }
    expect_same_logits(simulated(o.output, train::Activations::kNone, kTokens),
                       engine(o.output, runtime::Compute::kFloat, kTokens), 1e-3);
    // The validation of the last step is of the file, not of weights that were never stored.
    const auto loss = nlohmann::json::parse(r.json);
    EXPECT_EQ(loss["validations"].size(), 2u);
    EXPECT_NE(testing::read_file(o.loop.report).find("Quantization-aware training"), std::string::npos);
    EXPECT_FALSE(fs::exists(o.output.string() + ".checkpoint"));
    EXPECT_FALSE(fs::exists(o.output.string() + ".start.gguf"));
    std::ifstream lines(o.loop.metrics);
    int n = 0;
    for (std::string line; std::getline(lines, line); ++n) EXPECT_TRUE(nlohmann::json::accept(line)) << line;
    EXPECT_EQ(n, 32);
  }
}

TEST_F(QatTest, TheEnginesInt8ActivationsAreThoseThatWereSimulated) {
  QatOptions o = options("q4_0");
  o.activations = "engine";
  o.loop.steps = 5;
  ASSERT_OK(qat(o));
  expect_same_logits(simulated(o.output, train::Activations::kEngine, kTokens),
                     engine(o.output, runtime::Compute::kStored, kTokens), 1e-3, true);
}

TEST_F(QatTest, Int8FilesKeepTheirForm) {
  for (const std::string type : {"w8a8", "w8a8-static", "w8a8-asymmetric", "w4a8", "w4a8-static"}) {
    SCOPED_TRACE(type);
    QatOptions o = options(type);
    o.calibration.texts = {text_};
    o.calibration.max_tokens = 512;
    o.loop.steps = 20;
    // 4 bits have much to gain; 8 bits little, and must not lose much to large steps.
    const bool four = type.rfind("w4", 0) == 0;
    o.loop.lr = four ? 1e-3 : 1e-5;
    o.lr_scales = four ? 1e-3 : 1e-5;
    ASSERT_OK_AND_ASSIGN(const QatReport r, qat(o));
    const double share = four ? 0.95 : 1.05;
    EXPECT_LT(r.validations.back().kl, share * r.validations.front().kl);
    expect_same_logits(simulated(o.output, train::Activations::kAsFile, kTokens),
                       engine(o.output, runtime::Compute::kStored, kTokens), 1e-3, true);
  }
}

// Weights that hardly move beside static scales that do, or do not.
TEST_F(QatTest, StaticScalesLearnAtARateOfTheirOwn) {
  for (const double rate : {0.0, 0.02}) {
    SCOPED_TRACE(rate);
    QatOptions o = options("w8a8-static");
    o.method = "auto";  // inputs evened out
    o.calibration.texts = {text_};
    o.calibration.max_tokens = 512;
    o.loop.steps = 10;
    o.loop.lr = 1e-9;
    o.lr_scales = 1e-9;
    o.lr_inputs = rate;
    QuantizeOptions start;
    start.source = source_;
    start.output = dir_ / "start.gguf";
    start.type = o.type;
    start.method = o.method;
    start.calibration = o.calibration;
    ASSERT_OK(pipeline::run_quantize(start, null_progress()));
    o.start = start.output;
    o.type.clear();
    ASSERT_OK(qat(o));
    const auto before = open(start.output), after = open(o.output);
    int scales = 0;
    for (const TensorInfo& t : before->tensors()) {
      const std::optional<std::size_t> other = after->find(t.name);
      ASSERT_TRUE(other.has_value()) << t.name;
      const auto bytes = [&](const TensorView& v) {
        return std::string(reinterpret_cast<const char*>(v.data), t.bytes());
      };
      const std::string was = bytes(before->view(*before->find(t.name))), is = bytes(after->view(*other));
      const bool input = t.name.ends_with(".input_scale");
      scales += input ? 1 : 0;
      EXPECT_EQ(was == is, !input || rate == 0) << t.name;
    }
    EXPECT_GT(scales, 0);
    fs::remove(start.output);
    fs::remove(o.output);
  }
}

TEST_F(QatTest, KilledRunsResumeToTheSameBytes) {
  QatOptions o = options("q4_0");
  o.loop.steps = 12;
  o.loop.checkpoint_every = 4;
  ASSERT_OK(qat(o));
  const std::string whole = testing::read_file(o.output);

  // A sink that cancels stands for the kill here; tests/cli kills a real process.
  struct Cancelling final : ProgressSink {
    int updates = 0;
    void begin(std::string_view, std::uint64_t, std::string_view) override {}
    void update(std::uint64_t, std::string_view detail) override { updates += detail.rfind("loss", 0) == 0; }
    void end() override {}
    void note(std::string_view) override {}
    bool cancelled() const override { return updates >= 7; }
  } sink;
  QatOptions again = options("q4_0");
  again.loop.steps = 12;
  again.loop.checkpoint_every = 4;
  fs::create_directories(dir_ / "again");
  again.output = dir_ / "again" / o.output.filename();  // the name is in the file's provenance
  const auto stopped = qat(again, sink);
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  const auto refused = qat(again);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
  again.loop.resume = true;
  ASSERT_OK(qat(again));
  EXPECT_TRUE(testing::read_file(again.output) == whole);  // EXPECT_EQ would print both
}

TEST_F(QatTest, LowRankScalesAndBlocks) {
  for (const std::string train : {"lora", "scales", "blocks", "blocks+all"}) {
    SCOPED_TRACE(train);
    QatOptions o = options("q4_0");
    o.train = train;
    o.block_steps = 10;
    o.loop.steps = 10;
    o.lora.rank = 4;
    ASSERT_OK(qat(o));
    expect_same_logits(simulated(o.output, train::Activations::kNone, kTokens),
                       engine(o.output, runtime::Compute::kFloat, kTokens), 1e-3);
  }
}

TEST_F(QatTest, ABadStartIsOneLine) {
  const auto message = [&](const QatOptions& o) {
    const auto r = qat(o);
    EXPECT_FALSE(r.ok());
    const std::string m = r.ok() ? "" : r.error().message;
    EXPECT_EQ(m.find('\n'), std::string::npos) << m;
    EXPECT_FALSE(fs::exists(o.output));
    return m;
  };
  QatOptions o = options("q4_0");
  testing::write_file(dir_ / "empty.txt", "");
  o.loop.texts = {dir_ / "empty.txt"};
  EXPECT_NE(message(o).find("empty.txt"), std::string::npos);
  testing::write_file(dir_ / "short.txt", "Once upon a time.");
  o.loop.texts = {dir_ / "short.txt"};
  EXPECT_NE(message(o).find("token"), std::string::npos);
  o = options("q4_0");
  o.loop.steps = 0;
  EXPECT_NE(message(o).find("--steps"), std::string::npos);
  o = options("q4_0");
  o.loop.lr = 1e30;
  o.loop.clip = 0;
  o.loop.warmup = 0;
  EXPECT_NE(message(o).find("at step"), std::string::npos);
  o = options("q4_0");
  o.train = "everything";
  EXPECT_NE(message(o).find("everything"), std::string::npos);
  o = options("nonsense");
  EXPECT_NE(message(o).find("nonsense"), std::string::npos);
  o = options("q4_0");
  o.loop.device = "cuda";
  if (!at::hasCUDA()) {
    EXPECT_NE(message(o).find("CUDA"), std::string::npos);
  }
}

}  // namespace
}  // namespace narrow::recipe

// The training loop against PyTorch's, and what it says about data and numbers that are no good.
#include "train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/safetensors/reader.h"
#include "testing/testing.h"
#include "train/prepare.h"

namespace narrow::train {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

std::unique_ptr<Decoder> trained_decoder(const std::string& model) {
  const auto source = model::ModelSource::open(testing::shared_data() / "tiny-models" / model);
  EXPECT_OK(source);
  if (!source.ok()) return nullptr;
  auto decoder = Decoder::create(**source);
  EXPECT_OK(decoder);
  if (!decoder.ok()) return nullptr;
  train_weights(**decoder, nullptr);
  return std::move(*decoder);
}

// A student that has something to learn from an undisturbed teacher.
void disturb(Decoder& d) {
  const at::NoGradGuard off;
  torch::manual_seed(4);
  for (auto& [name, w] : d.weights()) w.add_(0.05 * w.std(false) * at::randn_like(w));
}

// golden.safetensors' 40 tokens.
std::vector<std::int32_t> golden_ids(const std::string& model) {
  const auto reader =
      io::safetensors::Reader::open(testing::shared_data() / "tiny-models" / model / "golden.safetensors");
  EXPECT_OK(reader);
  const auto* t = reader->find("input_ids");
  std::vector<std::int32_t> ids(static_cast<std::size_t>(t->info.shape.elements()));
  const std::byte* data = reader->view(*t).data;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (t->info.format == Format::kI64) {
      std::int64_t id = 0;
      std::memcpy(&id, data + 8 * i, 8);
      ids[i] = static_cast<std::int32_t>(id);
    } else {
      std::memcpy(&ids[i], data + 4 * i, 4);
    }
  }
  return ids;
}

// `windows` windows of 24 tokens to train on and 2 held out.
Dataset some_text(std::int64_t windows, std::int64_t n_vocab = 320) {
  Document d;
  for (std::int64_t i = 0; i < 24 * (windows + 2); ++i) {
    d.ids.push_back(static_cast<std::int32_t>((i * i * 31 + 7 * i + 3) % n_vocab));
  }
  DatasetOptions o;
  o.n_ctx = 24;
  o.n_vocab = n_vocab;
  o.validation_windows = 2;
  auto data = Dataset::create({&d, 1}, o);
  EXPECT_OK(data);
  return std::move(*data);
}

TrainerOptions plain_options(std::int64_t steps) {
  TrainerOptions o;
  o.steps = steps;
  o.batch.windows = 1;
  o.micro_windows = 1;
  o.rates.weights = 1e-3;
  o.schedule.decay = Decay::kConstant;
  o.schedule.warmup_steps = 0;
  o.loss.kl_weight = 0;
  o.loss.ce_weight = 1;
  return o;
}

TEST(Trainer, TenStepsAreThoseOfPyTorch) {
  NARROW_REQUIRE_SHARED();
  std::ifstream in(fs::path(NARROW_GOLDEN) / "decoder.json");
  const nlohmann::json golden = nlohmann::json::parse(in);
  for (const auto& [model, want] : golden["models"].items()) {
    SCOPED_TRACE(model);
    const auto d = trained_decoder(model);
    ASSERT_NE(d, nullptr);
    Document document;
    document.ids = golden_ids(model);
    DatasetOptions cut;
    cut.n_ctx = static_cast<std::int64_t>(document.ids.size());
    cut.n_vocab = d->config().n_vocab;
    cut.validation_windows = 0;
    ASSERT_OK_AND_ASSIGN(const Dataset data, Dataset::create({&document, 1}, cut));
    TrainerOptions o = plain_options(10);
    o.rates.weights = golden["lr"].get<double>();
    o.weight_decay = golden["weight_decay"].get<double>();
    o.clip_norm = golden["clip"].get<double>();
    o.adamw.beta1 = golden["beta1"].get<double>();
    o.adamw.beta2 = golden["beta2"].get<double>();
    ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, nullptr, data, o));
    ASSERT_OK_AND_ASSIGN(const TrainerReport report, trainer->run(null_progress()));
    ASSERT_EQ(report.steps.size(), want["curve"].size());
    for (std::size_t i = 0; i < report.steps.size(); ++i) {
      const double loss = want["curve"][i]["loss"].get<double>();
      const double norm = want["curve"][i]["gradient_norm"].get<double>();
      EXPECT_NEAR(report.steps[i].loss, loss, 1e-4 * loss + 1e-5) << i;
      EXPECT_NEAR(report.steps[i].gradient_norm, norm, 3e-4 * norm) << i;
    }
  }
}

TEST(Trainer, MicroBatchesChangeNothing) {
  NARROW_REQUIRE_SHARED();
  const Dataset data = some_text(8);
  std::vector<double> losses[2];
  for (const std::int64_t micro : {1, 4}) {
    const auto d = trained_decoder("llama");
    ASSERT_NE(d, nullptr);
    TrainerOptions o = plain_options(3);
    o.batch.windows = 4;
    o.micro_windows = micro;
    ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, nullptr, data, o));
    ASSERT_OK_AND_ASSIGN(const TrainerReport report, trainer->run(null_progress()));
    for (const StepMetrics& m : report.steps) losses[micro == 1 ? 0 : 1].push_back(m.loss);
    ASSERT_EQ(report.validations.size(), 2u);
    EXPECT_NE(report.validations[0].ce, report.validations[1].ce);
  }
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(losses[0][i], losses[1][i], 2e-5) << i;
}

// The loss is the sum of its parts, and whoever learns by the layers comes nearer to them.
TEST(Trainer, LayersAreLearnedFrom) {
  NARROW_REQUIRE_SHARED();
  const Dataset data = some_text(8);
  const auto teacher = trained_decoder("llama");
  ASSERT_NE(teacher, nullptr);
  double last[2];
  for (const double weight : {0.0, 10.0}) {
    SCOPED_TRACE(weight);
    const auto d = trained_decoder("llama");
    disturb(*d);
    TrainerOptions o = plain_options(40);
    o.loss.kl_weight = 1;
    o.loss.ce_weight = 0;
    o.hidden_weight = weight;
    ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, teacher.get(), data, o));
    const Batch batch = data.batch(0, o.batch);
    ASSERT_OK_AND_ASSIGN(const TrainerReport report, trainer->run(null_progress()));
    for (const StepMetrics& m : report.steps) {
      EXPECT_NEAR(m.loss, m.kl + weight * m.hidden, 1e-9);
      EXPECT_EQ(m.hidden > 0, weight > 0);
    }
    const at::NoGradGuard off;
    std::vector<at::Tensor> own, wanted;
    d->hidden(batch.tokens, &own);
    teacher->hidden(batch.tokens, &wanted);
    ASSERT_EQ(own.size(), static_cast<std::size_t>(d->config().n_layer));
    double sum = 0;
    for (std::size_t i = 0; i < own.size(); ++i) {
      sum += ((own[i] - wanted[i]).square().sum(-1) / wanted[i].square().sum(-1)).mean().item<double>();
    }
    last[weight > 0 ? 1 : 0] = sum;
  }
  EXPECT_LT(last[1], 0.9 * last[0]);
}

// A token that is lost counts for four times the median of its window's distances, however far away it is.
TEST(Trainer, LostTokensDoNotDrownTheOthers) {
  NARROW_REQUIRE_SHARED();
  const Dataset data = some_text(8);
  const auto teacher = trained_decoder("llama"), d = trained_decoder("llama");
  ASSERT_NE(teacher, nullptr);
  TrainerOptions o = plain_options(1);
  o.loss.kl_weight = 1;
  o.loss.ce_weight = 0;
  o.hidden_weight = 1;
  const Batch batch = data.batch(0, o.batch);
  std::vector<at::Tensor> own, wanted;
  disturb(*d);
  {
    const at::NoGradGuard off;
    d->weights().at("token_embd.weight")[batch.tokens[0][3]].mul_(-1000.0);
    d->hidden(batch.tokens, &own);
    teacher->hidden(batch.tokens, &wanted);
  }
  double capped = 0, plain = 0;
  for (std::size_t i = 0; i < own.size(); ++i) {
    const at::Tensor each = (own[i] - wanted[i]).square().sum(-1) / wanted[i].square().sum(-1);
    for (std::int64_t w = 0; w < each.size(0); ++w) {
      std::vector<float> row(each[w].data_ptr<float>(), each[w].data_ptr<float>() + each.size(1)),
          sorted = row;
      std::sort(sorted.begin(), sorted.end());
      const float most = 4 * sorted[(sorted.size() - 1) / 2];
      for (std::size_t t = 0; t < row.size(); ++t) {
        if (!batch.mask[w][static_cast<std::int64_t>(t)].item<bool>()) continue;
        capped += static_cast<double>(std::min(row[t], most));
        plain += static_cast<double>(row[t]);
      }
    }
  }
  const double rows = static_cast<double>(batch.counted()) * static_cast<double>(own.size());
  ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, teacher.get(), data, o));
  ASSERT_OK_AND_ASSIGN(const StepMetrics m, trainer->gradients(0));
  EXPECT_NEAR(m.hidden, capped / rows, 1e-4 * capped / rows);
  EXPECT_LT(capped, 0.1 * plain);
}

// Steps that compare every third position's logits see each of them once in three steps, however the windows
// are grouped, and their losses and gradients add up to the whole's.
TEST(Trainer, LogitsOfSomePositionsAddUpToAll) {
  NARROW_REQUIRE_SHARED();
  const Dataset data = some_text(8);
  const auto teacher = trained_decoder("llama");
  ASSERT_NE(teacher, nullptr);
  const auto d = trained_decoder("llama");
  disturb(*d);
  // Of the same windows: the step's number decides about the positions alone.
  const auto whole = [&](std::int64_t every, std::int64_t micro) {
    TrainerOptions o = plain_options(3);
    o.loss.kl_weight = 1;
    o.loss.ce_weight = 0.5;
    o.logits_every = every;
    o.micro_windows = micro;
    o.batch.windows = data.training_windows();
    auto trainer = Trainer::create(*d, teacher.get(), data, o);
    EXPECT_OK(trainer.status());
    double kl = 0, ce = 0;
    std::vector<at::Tensor> sums;
    for (std::int64_t step = 0; step < every; ++step) {
      (*trainer)->optimizer().zero_gradients();
      auto m = (*trainer)->gradients(step);
      EXPECT_OK(m.status());
      kl += m->kl / static_cast<double>(every);
      ce += m->ce / static_cast<double>(every);
      const auto& parameters = (*trainer)->optimizer().parameters();
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const at::Tensor g = parameters[i].tensor.grad() / static_cast<double>(every);
        if (step == 0) {
          sums.push_back(g);
        } else {
          sums[i] += g;
        }
      }
    }
    (*trainer)->optimizer().zero_gradients();
    return std::tuple(kl, ce, sums);
  };
  const auto [kl, ce, gradients] = whole(1, 2);
  ASSERT_GT(kl, 0);
  for (const std::int64_t micro : {1, 2}) {
    SCOPED_TRACE(micro);
    const auto [some_kl, some_ce, some] = whole(3, micro);
    EXPECT_NEAR(some_kl, kl, 1e-5 * kl);
    EXPECT_NEAR(some_ce, ce, 1e-5 * ce);
    ASSERT_EQ(some.size(), gradients.size());
    for (std::size_t i = 0; i < some.size(); ++i) {
      const double size = gradients[i].norm().item<double>();
      EXPECT_LE((some[i] - gradients[i]).norm().item<double>(), 1e-4 * size) << i;
    }
  }
}

// Progress counts what this run still does, so that its rate is that of the work.
TEST(Trainer, ProgressCountsWhatIsLeft) {
  NARROW_REQUIRE_SHARED();
  struct Sink final : ProgressSink {
    std::uint64_t total = 0, done = 0, most = 0;
    void begin(std::string_view, std::uint64_t all, std::string_view) override { total = all, done = 0; }
    void update(std::uint64_t n, std::string_view) override {
      most = std::max(most, n - done);
      done = n;
    }
    void end() override {}
    void note(std::string_view) override {}
  };
  const Dataset data = some_text(8);
  const TempDir dir;
  const auto d = trained_decoder("llama");
  ASSERT_NE(d, nullptr);
  TrainerOptions o = plain_options(2);
  o.checkpoint = dir / "run.checkpoint";
  const auto tokens = static_cast<std::uint64_t>(o.batch.windows * data.n_ctx());
  const auto run = [&](std::uint64_t steps) {
    Sink sink;
    auto trainer = Trainer::create(*d, nullptr, data, o);
    ASSERT_OK(trainer.status());
    ASSERT_OK((*trainer)->run(sink).status());
    EXPECT_EQ(sink.total, steps * tokens);
    EXPECT_EQ(sink.done, sink.total);
    EXPECT_EQ(sink.most, tokens);
  };
  run(2);
  o.steps = 5;
  o.resume = true;
  run(3);
  // A run of minutes is planned after its first steps.
  o.resume = false;
  o.steps = 0;
  o.max_seconds = 1;
  Sink sink;
  ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, nullptr, data, o));
  ASSERT_OK(trainer->run(sink).status());
  EXPECT_EQ(sink.most, tokens);
  EXPECT_GT(sink.total, 0);
}

// Stopping anywhere and resuming gives the bits of a run that never stopped.
TEST(Trainer, ResumedRunsEndTheSame) {
  NARROW_REQUIRE_SHARED();
  // Asks to stop during the third step.
  class StopAfter final : public ProgressSink {
   public:
    void begin(std::string_view, std::uint64_t, std::string_view) override {}
    void update(std::uint64_t, std::string_view) override { ++updates_; }
    void end() override {}
    void note(std::string_view) override {}
    bool cancelled() const override { return updates_ >= 4; }  // one says where it begins

   private:
    int updates_ = 0;
  };
  const TempDir dir;
  const Dataset data = some_text(8);
  TrainerOptions o = plain_options(6);
  o.batch.windows = 2;
  o.schedule.decay = Decay::kCosine;
  o.recipe = {{"test", 1}};
  const auto whole = trained_decoder("llama");
  ASSERT_NE(whole, nullptr);
  {
    ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*whole, nullptr, data, o));
    ASSERT_OK(trainer->run(null_progress()));
  }
  o.checkpoint = dir / "checkpoint";
  o.checkpoint_every = 100;
  {
    const auto d = trained_decoder("llama");
    ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, nullptr, data, o));
    StopAfter stop;
    const auto r = trainer->run(stop);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code, ErrorCode::kCancelled);
    EXPECT_NE(r.error().message.find("--resume"), std::string::npos) << r.error().message;
  }
  const auto resumed = trained_decoder("llama");
  o.resume = true;
  ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*resumed, nullptr, data, o));
  ASSERT_OK_AND_ASSIGN(const TrainerReport report, trainer->run(null_progress()));
  EXPECT_EQ(report.steps.size(), 6u);
  for (const auto& [name, w] : whole->weights()) EXPECT_TRUE(at::equal(w, resumed->weight(name))) << name;
  // Another recipe's checkpoint is not gone on with.
  o.recipe = {{"test", 2}};
  const auto other = trained_decoder("llama");
  ASSERT_OK_AND_ASSIGN(const auto again, Trainer::create(*other, nullptr, data, o));
  EXPECT_FALSE(again->run(null_progress()).ok());
}

TEST(Trainer, ALossThatIsNoNumberStopsTheRun) {
  NARROW_REQUIRE_SHARED();
  const Dataset data = some_text(4);
  const auto d = trained_decoder("llama");
  ASSERT_NE(d, nullptr);
  {
    const at::NoGradGuard off;
    d->weights().at("blk.1.ffn_norm.weight")[3] = std::numeric_limits<float>::quiet_NaN();
  }
  ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::create(*d, nullptr, data, plain_options(3)));
  const auto r = trainer->run(null_progress());
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, ErrorCode::kNumeric);
  EXPECT_EQ(r.error().message.find('\n'), std::string::npos);
  EXPECT_NE(r.error().message.find("step 1"), std::string::npos) << r.error().message;
}

TEST(Trainer, BadOptionsAreNamed) {
  NARROW_REQUIRE_SHARED();
  const Dataset data = some_text(4);
  const auto d = trained_decoder("llama");
  ASSERT_NE(d, nullptr);
  const auto expect = [&](TrainerOptions o, const char* part) {
    const auto r = Trainer::create(*d, nullptr, data, o);
    ASSERT_FALSE(r.ok()) << part;
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(r.error().message.find(part), std::string::npos) << r.error().message;
  };
  expect(plain_options(0), "how long");
  TrainerOptions o = plain_options(1);
  o.rates.weights = -1;
  expect(o, "--lr -1");
  o = plain_options(1);
  o.logits_every = 0;
  expect(o, "--logits-every 0");
  o = plain_options(1);
  o.loss.ce_weight = 0;
  expect(o, "nothing to learn from");
  o = plain_options(1);
  o.hidden_weight = -1;
  expect(o, "--hidden-weight -1");
  o.hidden_weight = 2;  // without a teacher
  expect(o, "--hidden-weight 2");
  train_weights(*d, [](const std::string&) { return true; });
  expect(plain_options(1), "no weight is left");
}

}  // namespace
}  // namespace narrow::train

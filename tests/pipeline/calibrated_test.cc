#include "pipeline/calibrated.h"

#include <fmt/format.h>

#include "base/rng.h"
#include "base/thread_team.h"
#include "model/tiny_models.h"
#include "pipeline/probe.h"
#include "pipeline/produce.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

calib::TokenWindows random_windows(std::uint64_t seed, int count, std::int32_t n_vocab) {
  Rng rng(seed);
  calib::TokenWindows w;
  for (int i = 0; i < count; ++i) {
    const std::int64_t n = 20 + static_cast<std::int64_t>(rng.next_u64() % 30);
    w.lengths.push_back(n);
    for (std::int64_t t = 0; t < n; ++t) {
      w.tokens.push_back(static_cast<std::int32_t>(rng.next_u64() % static_cast<std::uint64_t>(n_vocab)));
    }
  }
  return w;
}

// Stops the run at the n-th question.
class Stopper final : public ProgressSink {
 public:
  explicit Stopper(int questions) : left_(questions) {}
  void begin(std::string_view, std::uint64_t, std::string_view) override {}
  void update(std::uint64_t, std::string_view) override {}
  void end() override {}
  void note(std::string_view) override {}
  bool cancelled() const override { return left_-- <= 0; }

 private:
  mutable int left_;
};

// A tiny model and everything that a run on it takes.
struct TinyRun {
  static Result<TinyRun> open(const std::string& name, const std::string& method,
                              const std::string& type = "q4_0") {
    TinyRun s;
    NARROW_ASSIGN(s.source, model::ModelSource::open(model::tiny(name)));
    s.windows = random_windows(3, 40, static_cast<std::int32_t>(s.source->config().n_vocab));
    s.options.type = type;
    s.options.method = method;
    s.options.pure = true;
    NARROW_ASSIGN(s.metadata, s.source->gguf_metadata());
    s.metadata.set_u32("general.file_type", 2);
    NARROW_ASSIGN(s.plan, make_plan(*s.source, s.options, s.metadata));
    return s;
  }
  Status run(const fs::path& out, ProgressSink& progress, bool resume = false,
             std::vector<TensorLoss>* losses = nullptr) const {
    NARROW_ASSIGN(auto job,
                  QuantizeJob::open({out, 0, "recipe", "digest", resume}, metadata, plan.outputs, progress));
    const auto fill = [&]() -> Status {
      if (plan.method.needs_windows()) {
        NARROW_TRY(
            produce_calibrated({source, &plan, &plan.method, &windows, &options, gradients}, *job, progress));
      }
      return produce_by_rows(*source, plan, true, nullptr, *job, progress);
    };
    if (const Status s = fill(); !s.ok()) return job->abandon(s.error());
    NARROW_TRY(job->commit().status());
    if (losses != nullptr) *losses = losses_of(*job);
    return {};
  }
  std::shared_ptr<const model::ModelSource> source;
  calib::TokenWindows windows;
  QuantizeOptions options;
  io::gguf::Metadata metadata;
  Plan plan;
  const calib::GradientFile* gradients = nullptr;
};

Result<double> kl(const TinyRun& s, const fs::path& file) {
  NARROW_ASSIGN(ModelProbe probe, ModelProbe::create(s.source, s.windows, null_progress()));
  NARROW_ASSIGN(const auto quantized, model::ModelSource::open(file));
  NARROW_ASSIGN(const eval::MeanAndError result, probe.measure(quantized, null_progress()));
  return result.mean;
}

TEST(Calibrated, EveryArchitectureLosesLessThanByRounding) {
  NARROW_REQUIRE_SHARED();
  double total = 0, total_rtn = 0;
  for (const std::string name : model::kTinyModels) {
    SCOPED_TRACE(name);
    TempDir dir;
    ASSERT_OK_AND_ASSIGN(const TinyRun rtn, TinyRun::open(name, "rtn"));
    ASSERT_OK_AND_ASSIGN(const TinyRun gptq, TinyRun::open(name, "gptq+norms"));
    ASSERT_OK(rtn.run(dir / "rtn.gguf", null_progress()));
    ASSERT_OK(gptq.run(dir / "gptq.gguf", null_progress()));
    EXPECT_EQ(fs::file_size(dir / "rtn.gguf"), fs::file_size(dir / "gptq.gguf"));
    ASSERT_OK_AND_ASSIGN(const double before, kl(rtn, dir / "rtn.gguf"));
    ASSERT_OK_AND_ASSIGN(const double after, kl(gptq, dir / "gptq.gguf"));
    EXPECT_LT(after, before);
    total += after;
    total_rtn += before;
  }
  EXPECT_LT(total, 0.9 * total_rtn);
}

TEST(Calibrated, NoMatrixLosesMoreOfItsOutputThanByRounding) {
  NARROW_REQUIRE_SHARED();
  for (const std::string name : model::kTinyModels) {
    for (const char* method : {"gptq", "auto+norms"}) {
      if (std::string_view(method) != "gptq" && name != "llama" && name != "mixtral") continue;
      SCOPED_TRACE(name + " " + method);
      TempDir dir;
      ASSERT_OK_AND_ASSIGN(TinyRun run, TinyRun::open(name, method));
      std::vector<TensorLoss> losses;
      ASSERT_OK(run.run(dir / "plain.gguf", null_progress(), false, &losses));
      for (const TensorLoss& l : losses) EXPECT_FALSE(l.output_error.has_value()) << l.name;
      run.options.compare_rounding = true;
      ASSERT_OK(run.run(dir / "compared.gguf", null_progress(), false, &losses));
      EXPECT_EQ(testing::read_file(dir / "plain.gguf"), testing::read_file(dir / "compared.gguf"));
      int compared = 0;
      for (const TensorLoss& l : losses) {
        if (!l.output_error) continue;
        ++compared;
        EXPECT_GT(*l.output_error, 0) << l.name;
        EXPECT_LE(*l.output_error, *l.rounded_output_error) << l.name;
        EXPECT_LT(*l.rounded_output_error, 1) << l.name;
      }
      EXPECT_GE(compared, 4);
    }
  }
}

// Only the matrices that the gradients are of change, by what they say.
TEST(Calibrated, GradientsChangeTheMatricesTheyAreOf) {
  NARROW_REQUIRE_SHARED();
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(const TinyRun s, TinyRun::open("llama", "gptq"));
  ASSERT_OK(s.run(dir / "without.gguf", null_progress()));
  const auto n = static_cast<std::size_t>(s.source->config().n_embd);
  calib::OutputGradients g;
  const std::string last = fmt::format("blk.{}.ffn_down.weight", s.source->config().n_layer - 1);
  std::vector<float>& metric = g.matrices[last];
  for (std::size_t i = 0; i < n * n; ++i) metric.push_back(i % (n + 1) == 0 ? 1.0f : 0.9f);
  ASSERT_OK(calib::write_output_gradients(g, dir / "g.gguf"));
  ASSERT_OK_AND_ASSIGN(const calib::GradientFile file, calib::GradientFile::open(dir / "g.gguf", *s.source));
  TinyRun with = s;
  with.gradients = &file;
  ASSERT_OK(with.run(dir / "with.gguf", null_progress()));
  ASSERT_OK_AND_ASSIGN(const auto a, model::ModelSource::open(dir / "without.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto b, model::ModelSource::open(dir / "with.gguf"));
  std::vector<std::string> changed;
  for (std::size_t i = 0; i < a->tensors().size(); ++i) {
    const TensorInfo& t = a->tensors()[i];
    std::vector<std::byte> x(t.bytes()), y(t.bytes());
    ASSERT_OK(a->read_raw(i, 0, t.shape.rows(), x.data()));
    ASSERT_OK(b->read_raw(i, 0, t.shape.rows(), y.data()));
    if (x != y && t.name.starts_with("blk.")) changed.push_back(t.name);
  }
  EXPECT_EQ(changed, std::vector<std::string>{last});
}

TEST(Calibrated, SameBytesForAnyNumberOfThreads) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : {"llama", "mixtral", "gpt2"}) {
    TempDir dir;
    ASSERT_OK_AND_ASSIGN(const TinyRun s, TinyRun::open(name, "auto+norms"));
    set_thread_count(1);
    ASSERT_OK(s.run(dir / "one.gguf", null_progress()));
    set_thread_count(3);
    ASSERT_OK(s.run(dir / "three.gguf", null_progress()));
    set_thread_count(0);
    EXPECT_EQ(testing::read_file(dir / "one.gguf"), testing::read_file(dir / "three.gguf")) << name;
  }
}

// Wherever a run is stopped, going on gives the bytes of an undisturbed one.
TEST(Calibrated, ResumedRunsEndWithTheSameBytes) {
  NARROW_REQUIRE_SHARED();
  // With auto, parts of a layer are finished one after the other.
  const std::pair<const char*, const char*> runs[] = {
      {"llama", "gptq+norms"}, {"qwen3_moe", "gptq+norms"}, {"gpt_neox", "gptq+norms"},
      {"llama", "auto+norms"}, {"qwen3_moe", "auto+norms"}, {"gpt_neox", "auto+norms"}};
  for (const auto& [name, method] : runs) {
    SCOPED_TRACE(fmt::format("{} {}", name, method));
    TempDir dir;
    ASSERT_OK_AND_ASSIGN(const TinyRun s, TinyRun::open(name, method));
    ASSERT_OK(s.run(dir / "whole.gguf", null_progress()));
    const std::string whole = testing::read_file(dir / "whole.gguf");
    int stopped = 0;
    for (const int questions : {1, 9, 17, 25, 40, 70}) {
      SCOPED_TRACE(questions);
      Stopper stopper(questions);
      const Status first = s.run(dir / "out.gguf", stopper);
      if (!first.ok()) {
        ++stopped;
        ASSERT_OK(s.run(dir / "out.gguf", null_progress(), true));
      }
      EXPECT_EQ(testing::read_file(dir / "out.gguf"), whole);
      fs::remove(dir / "out.gguf");
    }
    EXPECT_GE(stopped, 2) << name;
  }
}

// Of many tokens only some are matched with the original's; that is no less repeatable.
TEST(Calibrated, ManyTokensMatchedInPart) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : {"llama", "gpt2"}) {
    SCOPED_TRACE(name);
    TempDir dir;
    ASSERT_OK_AND_ASSIGN(TinyRun rtn, TinyRun::open(name, "rtn"));
    ASSERT_OK_AND_ASSIGN(TinyRun gptq, TinyRun::open(name, "gptq+norms"));
    rtn.windows = gptq.windows =
        random_windows(8, 250, static_cast<std::int32_t>(rtn.source->config().n_vocab));
    ASSERT_GT(gptq.windows.size(), 8192);
    ASSERT_OK(rtn.run(dir / "rtn.gguf", null_progress()));
    ASSERT_OK(gptq.run(dir / "whole.gguf", null_progress()));
    ASSERT_OK_AND_ASSIGN(const double before, kl(rtn, dir / "rtn.gguf"));
    ASSERT_OK_AND_ASSIGN(const double after, kl(gptq, dir / "whole.gguf"));
    EXPECT_LT(after, before);
    Stopper stopper(150);
    ASSERT_FALSE(gptq.run(dir / "out.gguf", stopper).ok());
    ASSERT_OK(gptq.run(dir / "out.gguf", null_progress(), true));
    EXPECT_EQ(testing::read_file(dir / "out.gguf"), testing::read_file(dir / "whole.gguf"));
  }
}

// One token, one window: little is known, but a file comes out.
TEST(Calibrated, OneShortWindowIsEnough) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : {"llama", "mixtral"}) {
    TempDir dir;
    ASSERT_OK_AND_ASSIGN(TinyRun s, TinyRun::open(name, "auto+norms"));
    s.windows = random_windows(5, 1, 300);
    s.windows.lengths = {1};
    s.windows.tokens.resize(1);
    ASSERT_OK(s.run(dir / "out.gguf", null_progress()));
    ASSERT_OK(model::ModelSource::open(dir / "out.gguf"));
  }
}

TEST(Method, NamesJoinByPlus) {
  ASSERT_OK_AND_ASSIGN(const MethodSpec spec, parse_method("rotate+awq+gptq+norms"));
  EXPECT_EQ(spec.transforms, (std::vector<std::string>{"rotate", "awq"}));
  EXPECT_EQ(spec.encoder->name, "gptq");
  EXPECT_TRUE(spec.norms && spec.needs_windows() && spec.needs_statistics());
  ASSERT_OK_AND_ASSIGN(const MethodSpec plain, parse_method("rtn"));
  EXPECT_FALSE(plain.needs_windows() || plain.needs_statistics());
  for (const char* bad : {"", "gptq+", "gptq+rtn", "gptq+awq", "best", "gptq gptq"}) {
    const auto r = parse_method(bad);
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace narrow::pipeline

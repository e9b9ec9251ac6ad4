#include "pipeline/allocate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"
#include "base/thread_team.h"
#include "io/gguf/writer.h"
#include "pipeline/fit_memory.h"
#include "pipeline/tiny_gguf.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

calib::TokenWindows random_windows(std::uint64_t seed, int count, std::int64_t length, std::int64_t n_vocab) {
  Rng rng(seed);
  calib::TokenWindows w;
  for (int i = 0; i < count; ++i) {
    for (std::int64_t t = 0; t < length; ++t) {
      w.tokens.push_back(static_cast<std::int32_t>(rng.next_u64() % static_cast<std::uint64_t>(n_vocab)));
    }
    w.lengths.push_back(length);
  }
  return w;
}

// A tiny model whose layers matter: larger weights than tiny_gguf's own.
struct Tiny {
  explicit Tiny(bool tied = false) {
    testing::TinyGguf t;
    t.tied = tied;
    t.n_ff = 288;  // rows that super-blocks do not fit
    t.n_vocab = 96;
    t.edit = [](const std::string&, std::vector<float>& v) {
      for (float& x : v) x = x == 1.0f ? x : 2 * x;
    };
    status = testing::write_tiny_gguf(dir / "tiny.gguf", t);
    if (!status.ok()) return;
    auto opened = model::ModelSource::open(dir / "tiny.gguf");
    if (opened.ok()) source = *opened;
  }

  Result<Plan> plan(const QuantizeOptions& o) const {
    QuantizeOptions with_type = o;
    with_type.type = "q8_0";
    return make_plan(*source, with_type, metadata());
  }
  io::gguf::Metadata metadata() const {
    auto m = *source->gguf_metadata();
    m.set_string("narrow.recipe", "something");
    return m;
  }
  // Types of a target, and the plan that came of them.
  Result<PlanFile> allocate(const QuantizeOptions& o, Plan& out, const DamageTable* damage = nullptr,
                            ProgressSink& progress = null_progress()) const {
    NARROW_ASSIGN(out, plan(o));
    const io::gguf::Metadata meta = metadata();
    AllocateInputs in;
    in.source = source;
    in.digest = "sha256:aa";
    in.options = &o;
    in.metadata = &meta;
    in.windows = random_windows(5, 8, 64, 96);
    in.damage = damage;
    return plan_types(in, out, progress);
  }
  Result<DamageTable> damage(bool small = false) const {
    DamageInputs in;
    in.source = source;
    in.windows = random_windows(5, 8, 64, 96);
    in.small = small;
    return measure_damage(in, null_progress());
  }

  TempDir dir;
  Status status;
  std::shared_ptr<const model::ModelSource> source;
};

// Writes a file of the planned types, with nothing in it, and says how long it is.
std::uint64_t written_bytes(const Tiny& tiny, const Plan& plan) {
  const fs::path path = tiny.dir / "written.gguf";
  auto writer = io::gguf::Writer::create(path, tiny.metadata(), plan.outputs);
  EXPECT_OK(writer);
  for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
    EXPECT_OK((*writer)->write(i, 0, std::vector<std::byte>(plan.outputs[i].bytes())));
  }
  EXPECT_OK((*writer)->finish());
  return fs::file_size(path);
}

TEST(Damage, MoreBitsLoseLess) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  ASSERT_OK_AND_ASSIGN(const DamageTable table, tiny.damage(true));
  ASSERT_EQ(table.tensors.size(), 16u);
  constexpr Format kDescending[] = {Format::kIQ1_S, Format::kIQ2_XXS, Format::kQ2_K, Format::kQ3_K,
                                    Format::kQ4_K,  Format::kQ5_K,    Format::kQ6_K, Format::kQ8_0};
  for (const TensorDamage& t : table.tensors) {
    EXPECT_TRUE(t.measured) << t.name;
    EXPECT_GT(t.sensitivity, 0) << t.name;
    double last = std::numeric_limits<double>::infinity();
    int seen = 0;
    for (const Format f : kDescending) {
      for (const TypeDamage& d : t.types) {
        if (d.format != f) continue;
        EXPECT_LT(d.kl, last) << t.name << " " << format_info(f).name;
        last = d.kl;
        ++seen;
      }
    }
    // ffn_down's rows of 288 hold blocks of 32 only.
    EXPECT_EQ(seen, t.name.find("ffn_down") != std::string::npos ? 1 : 8) << t.name;
  }
}

// Sizes above those of the largest quantized type everywhere are met, too, by tensors that stay in 16 bits;
// what fits a machine has none.
TEST(Allocate, SixteenBitsWhereAllElseIsAtItsLargest) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  QuantizeOptions o;
  Plan plan;
  ASSERT_OK_AND_ASSIGN(plan, tiny.plan(o));  // everything q8_0
  const std::uint64_t q8 = written_bytes(tiny, plan);
  o.target_bytes = q8 + q8 / 4;
  ASSERT_OK(tiny.allocate(o, plan));
  EXPECT_LE(written_bytes(tiny, plan), o.target_bytes);
  EXPECT_GT(written_bytes(tiny, plan), q8 + q8 / 8);
  EXPECT_GT(std::count(plan.types.begin(), plan.types.end(), Format::kF16), 0);
  o.target_bytes = 0;
  o.fit_context = 64;
  ASSERT_OK(tiny.allocate(o, plan));
  EXPECT_EQ(std::count(plan.types.begin(), plan.types.end(), Format::kF16), 0);
  EXPECT_EQ(written_bytes(tiny, plan), q8);
}

// The table against runs of the changed model itself: of single tensors in types that no spot run took, and
// of all tensors together.
TEST(Damage, IsWhatRunsOfTheModelSay) {
  for (const bool tied : {false, true}) {
    const Tiny tiny(tied);
    ASSERT_OK(tiny.status);
    ASSERT_OK_AND_ASSIGN(const DamageTable table, tiny.damage());
    ASSERT_OK_AND_ASSIGN(LayerProbe probe,
                         LayerProbe::create(tiny.source, random_windows(9, 8, 64, 96), null_progress()));
    const auto overlay = std::make_shared<model::OverlaySource>(tiny.source);
    ASSERT_OK_AND_ASSIGN(const double same, probe.measure(overlay, 0, true, null_progress()));
    EXPECT_NEAR(same, 0, 1e-12);
    double sum = 0;
    for (const TensorDamage& t : table.tensors) {
      const std::size_t index = tiny.source->find(t.name).value();
      ASSERT_OK_AND_ASSIGN(auto data, encode_tensor(*tiny.source, index, Format::kQ5_0, nullptr, true));
      ASSERT_OK(overlay->replace(index, Format::kQ5_0, std::move(data)));
      ASSERT_OK_AND_ASSIGN(const double measured, probe.measure(overlay, 0, true, null_progress()));
      overlay->restore(index);
      for (const TypeDamage& d : t.types) {
        if (d.format != Format::kQ5_0) continue;
        EXPECT_NEAR(d.kl / measured, 1, 0.5) << t.name << " " << tied;
        sum += d.kl;
      }
    }
    for (const TensorDamage& t : table.tensors) {
      const std::size_t index = tiny.source->find(t.name).value();
      ASSERT_OK_AND_ASSIGN(auto data, encode_tensor(*tiny.source, index, Format::kQ5_0, nullptr, true));
      ASSERT_OK(overlay->replace(index, Format::kQ5_0, std::move(data)));
    }
    ASSERT_OK_AND_ASSIGN(const double together, probe.measure(overlay, 0, true, null_progress()));
    EXPECT_NEAR(sum / together, 1, 0.3) << tied;
  }
}

TEST(Probe, ASampleOfTheVocabularyIsAsGoodAsAllOfIt) {
  // 96 tokens are fewer than kLikely: nothing is sampled. ModelProbe takes the whole vocabulary.
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  const calib::TokenWindows windows = random_windows(9, 4, 64, 96);
  const auto overlay = std::make_shared<model::OverlaySource>(tiny.source);
  const std::size_t head = tiny.source->find("output.weight").value();
  ASSERT_OK_AND_ASSIGN(auto data, encode_tensor(*tiny.source, head, Format::kF16, nullptr, true));
  ASSERT_OK(overlay->replace(head, Format::kF16, std::move(data)));
  ASSERT_OK_AND_ASSIGN(LayerProbe layers, LayerProbe::create(tiny.source, windows, null_progress()));
  ASSERT_OK_AND_ASSIGN(ModelProbe whole, ModelProbe::create(tiny.source, windows, null_progress()));
  ASSERT_OK_AND_ASSIGN(const double a, layers.measure(overlay, 2, false, null_progress()));
  ASSERT_OK_AND_ASSIGN(const eval::MeanAndError b, whole.measure(overlay, null_progress()));
  EXPECT_GT(a, 0);
  EXPECT_NEAR(a / b.mean, 1, 0.3);  // three quarters of the positions against half of them
}

TEST(Allocate, SizesAreMetToTheByteOfTheFile) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  ASSERT_OK_AND_ASSIGN(const DamageTable table, tiny.damage());
  QuantizeOptions o;
  double last = std::numeric_limits<double>::infinity();
  for (const std::uint64_t target : {540000u, 700000u, 900000u}) {
    o.target_bytes = target;
    Plan plan;
    ASSERT_OK_AND_ASSIGN(const PlanFile file, tiny.allocate(o, plan, &table));
    EXPECT_LE(plan.report.output_bytes, target);
    EXPECT_GT(static_cast<double>(plan.report.output_bytes), 0.99 * static_cast<double>(target));
    EXPECT_EQ(file.file_bytes, plan.report.output_bytes);
    EXPECT_EQ(written_bytes(tiny, plan), plan.report.output_bytes);
    EXPECT_LT(file.predicted_kl, last) << target;
    last = file.predicted_kl;
    EXPECT_EQ(file.types.size(), 16u);
  }
  // Bits per weight count tensors alone.
  o.target_bytes = 0;
  o.target_bpw = 5;
  Plan plan;
  ASSERT_OK(tiny.allocate(o, plan, &table));
  EXPECT_LE(plan.report.bpw, 5);
  EXPECT_GT(plan.report.bpw, 4.95);
}

TEST(Allocate, AKlIsReachedByASmallerFileThanALesserOne) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  QuantizeOptions o;
  std::uint64_t last = std::numeric_limits<std::uint64_t>::max();
  for (const double kl : {0.005, 0.1}) {
    o.target_kl = kl;
    Plan plan;
    ASSERT_OK_AND_ASSIGN(const PlanFile file, tiny.allocate(o, plan));
    ASSERT_TRUE(file.measured_kl);
    EXPECT_LE(*file.measured_kl, kl);
    EXPECT_NEAR(file.predicted_kl / *file.measured_kl, 1, 0.05) << kl;
    EXPECT_LT(file.file_bytes, last);
    last = file.file_bytes;
  }
  o.target_kl = 1e-9;
  Plan plan;
  const auto file = tiny.allocate(o, plan);
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.error().message.find("--kl 1e-09: out of reach"), std::string::npos) << file.error().message;
}

TEST(Allocate, RulesWin) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  QuantizeOptions o;
  o.target_bytes = 700000;
  o.rules = {{"attn_v", "q6_k"}, {"blk.1.attn_q", "f16"}};
  o.output_type = "q8_0";
  Plan plan;
  ASSERT_OK_AND_ASSIGN(const PlanFile file, tiny.allocate(o, plan));
  EXPECT_LE(plan.report.output_bytes, o.target_bytes);
  int asked = 0;
  for (const PlannedTensor& t : plan.report.tensors) {
    const bool value = t.name.find("attn_v") != std::string::npos;
    const std::string expected = value                             ? "q6_k"
                                 : t.name == "blk.1.attn_q.weight" ? "f16"
                                 : t.name == "output.weight"       ? "q8_0"
                                                                   : "";
    if (expected.empty()) {
      EXPECT_TRUE(t.reason == "allocated" || t.reason.starts_with("kept")) << t.name << ": " << t.reason;
      continue;
    }
    ++asked;
    EXPECT_EQ(t.to_type, expected) << t.name;
    EXPECT_NE(t.reason, "allocated") << t.name;
  }
  EXPECT_EQ(asked, 4);
}

TEST(Allocate, APlanIsKeptEditedAndRunAgain) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  QuantizeOptions o;
  o.target_bytes = 700000;
  o.save_plan = tiny.dir / "plan.json";
  Plan first;
  ASSERT_OK_AND_ASSIGN(const PlanFile made, tiny.allocate(o, first));

  QuantizeOptions again;
  again.plan = o.save_plan;
  Plan second;
  ASSERT_OK_AND_ASSIGN(const PlanFile same, tiny.allocate(again, second));
  EXPECT_EQ(second.types, first.types);
  EXPECT_EQ(second.report.output_bytes, first.report.output_bytes);
  EXPECT_NEAR(same.predicted_kl, made.predicted_kl, 1e-9);

  // Another size by the same measurements: no spot runs.
  struct Tasks final : ProgressSink {
    void begin(std::string_view task, std::uint64_t, std::string_view) override { names.emplace_back(task); }
    void update(std::uint64_t, std::string_view) override {}
    void end() override {}
    void note(std::string_view) override {}
    std::vector<std::string> names;
  } tasks;
  again.target_bytes = 600000;
  Plan third;
  ASSERT_OK_AND_ASSIGN(const PlanFile smaller, tiny.allocate(again, third, nullptr, tasks));
  EXPECT_LE(smaller.file_bytes, 600000u);
  EXPECT_GT(smaller.predicted_kl, made.predicted_kl);
  EXPECT_EQ(std::count(tasks.names.begin(), tasks.names.end(), "spot runs"), 0);

  // Edited: one tensor in more bits; rules still win over another.
  ASSERT_OK_AND_ASSIGN(PlanFile edited, read_plan(o.save_plan));
  for (auto& [name, type] : edited.types) {
    if (name == "blk.0.attn_q.weight") type = Format::kQ8_0;
  }
  ASSERT_OK(write_plan(tiny.dir / "edited.json", edited));
  QuantizeOptions run;
  run.plan = tiny.dir / "edited.json";
  run.rules = {{"blk.1.attn_q", "q6_k"}};
  Plan fourth;
  ASSERT_OK(tiny.allocate(run, fourth));
  for (std::size_t i = 0; i < fourth.types.size(); ++i) {
    const std::string& name = fourth.report.tensors[i].name;
    const Format expected = name == "blk.0.attn_q.weight"   ? Format::kQ8_0
                            : name == "blk.1.attn_q.weight" ? Format::kQ6_K
                                                            : first.types[i];
    EXPECT_EQ(fourth.types[i], expected) << name;
  }
}

TEST(Allocate, TheSameForAnyNumberOfThreads) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  QuantizeOptions o;
  o.target_bytes = 650000;
  std::vector<Plan> plans(2);
  std::vector<double> predicted;
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    auto file = tiny.allocate(o, plans[predicted.size()]);
    set_thread_count(0);
    ASSERT_OK(file);
    predicted.push_back(file->predicted_kl);
  }
  EXPECT_EQ(plans[0].types, plans[1].types);
  EXPECT_EQ(predicted[0], predicted[1]);
}

TEST(Allocate, CodebooksWhereNothingElseIsSmallEnough) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  QuantizeOptions o;
  Plan plan;
  o.target_bytes = 1000;
  const auto none = tiny.allocate(o, plan);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(none.error().message.find("cannot be made as small as 1000 bytes"), std::string::npos)
      << none.error().message;
  o.target_bytes = 300000;  // q2_k throughout takes 330,000
  ASSERT_OK(tiny.allocate(o, plan));
  EXPECT_LE(plan.report.output_bytes, o.target_bytes);
  EXPECT_TRUE(std::any_of(plan.types.begin(), plan.types.end(), [](Format f) {
    return format_info(f).name.starts_with("iq1") || format_info(f).name.starts_with("iq2");
  }));
}

TEST(Allocate, TargetsExcludeEachOther) {
  const auto message = [](auto change) {
    QuantizeOptions o;
    change(o);
    const Status s = check_targets(o);
    return s.ok() ? std::string("ok") : s.error().message;
  };
  EXPECT_EQ(message([](QuantizeOptions&) {}), "ok");
  EXPECT_EQ(message([](QuantizeOptions& o) { o.target_kl = 0.1; }), "ok");
  EXPECT_EQ(message([](QuantizeOptions& o) {
              o.target_kl = 0.1;
              o.target_bytes = 5;
            }),
            "--size and --kl both say which types to use: give one of them");
  EXPECT_EQ(message([](QuantizeOptions& o) {
              o.fit_context = 512;
              o.type = "q4_k_m";
            }),
            "--fit and --type both say which types to use: give one of them");
  EXPECT_EQ(message([](QuantizeOptions& o) {
              o.plan = "p.json";
              o.pure = true;
            }),
            "--plan and --pure both say which types to use: give one of them");
  EXPECT_EQ(message([](QuantizeOptions& o) { o.save_plan = "p.json"; }),
            "--save-plan p.json: no plan is made; give --size, --bpw, --kl or --fit too");
  EXPECT_EQ(message([](QuantizeOptions& o) { o.target_bpw = -1; }), "--bpw -1: must be positive");
  EXPECT_EQ(message([](QuantizeOptions& o) { o.target_kl = std::nan(""); }), "--kl nan: must be positive");
}

TEST(HoldOut, EveryWindowIsOnOneSide) {
  for (const int count : {1, 2, 3, 7, 8, 40}) {
    const calib::TokenWindows all = random_windows(2, count, 16, 1000000);
    const HeldOut h = hold_out(all);
    if (count == 1) {
      EXPECT_EQ(h.judge.tokens, all.tokens);
      EXPECT_EQ(h.fit.tokens, all.tokens);
      continue;
    }
    EXPECT_EQ(h.fit.lengths.size() + h.judge.lengths.size(), all.lengths.size());
    EXPECT_EQ(h.judge.lengths.size(), static_cast<std::size_t>(std::clamp(count / 4, 1, 8)));
    std::vector<std::int32_t> both = h.fit.tokens;
    both.insert(both.end(), h.judge.tokens.begin(), h.judge.tokens.end());
    std::vector<std::int32_t> sorted = all.tokens;
    std::sort(both.begin(), both.end());
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(both, sorted);
  }
}

TEST(FitMemory, LongerContextsLeaveLess) {
  const Tiny tiny;
  ASSERT_OK(tiny.status);
  const model::ModelConfig& c = tiny.source->config();
  ASSERT_OK_AND_ASSIGN(const std::uint64_t available, available_memory());
  EXPECT_GT(available, 1u << 20);
  constexpr std::uint64_t kFree = 1u << 30;
  ASSERT_OK_AND_ASSIGN(const std::uint64_t at_64, fitting_file_bytes(c, 64, kFree));
  ASSERT_OK_AND_ASSIGN(const std::uint64_t at_128, fitting_file_bytes(c, 128, kFree));
  EXPECT_LT(at_64, kFree);
  // 64 positions more in two layers, and the activations of a run of 64 more tokens.
  const std::int64_t kv = 64 * 2 * 2 * c.n_head_kv * c.head_dim * 2;
  EXPECT_GE(at_64 - at_128, static_cast<std::uint64_t>(kv));
  EXPECT_LT(at_64 - at_128, static_cast<std::uint64_t>(kv) + (2u << 20));
  EXPECT_FALSE(fitting_file_bytes(c, 0, kFree).ok());
  EXPECT_FALSE(fitting_file_bytes(c, 129, kFree).ok());  // n_ctx_train is 128
  const auto none = fitting_file_bytes(c, 64, 1000);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace narrow::pipeline

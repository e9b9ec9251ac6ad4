// Transforms of whole models: what they compute stays, what was done and refused is said.
#include "pipeline/transform.h"

#include <map>

#include "base/thread_team.h"
#include "calib/collect.h"
#include "model/transformed.h"
#include "same_function.h"

namespace narrow::pipeline {
namespace {

using narrow::testing::greatest_difference;
using narrow::testing::logits_of;
using narrow::testing::open_tiny;
using Source = std::shared_ptr<const model::ModelSource>;

class Notes final : public ProgressSink {
 public:
  void begin(std::string_view, std::uint64_t, std::string_view) override {}
  void update(std::uint64_t, std::string_view) override {}
  void end() override {}
  void note(std::string_view line) override { text += std::string(line) + "\n"; }
  bool cancelled() const override { return stop; }
  bool has(std::string_view part) const { return text.find(part) != std::string::npos; }
  std::string text;
  bool stop = false;
};

calib::ModelStats stats_of(const Source& source) {
  Rng rng(4);
  calib::TokenWindows windows;
  for (int w = 0; w < 4; ++w) {
    windows.lengths.push_back(64);
    for (int i = 0; i < 64; ++i) windows.tokens.push_back(static_cast<std::int32_t>(rng.next_u64() % 320));
  }
  auto r = calib::collect(source, windows, null_progress());
  EXPECT_OK(r);
  return r.ok() ? std::move(r).value() : calib::ModelStats();
}

TransformOptions options_for(const model::ModelSource& source) {
  TransformOptions o;
  for (const TensorInfo& t : source.tensors()) {
    const bool fits = model::is_quantizable(t) && t.shape.row_length() % 32 == 0;
    o.types.push_back(fits ? Format::kQ4_0 : Format::kF32);
  }
  return o;
}

std::map<std::string, std::vector<float>> weights(const model::ModelSource& source) {
  std::map<std::string, std::vector<float>> out;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const Shape& shape = source.tensors()[i].shape;
    std::vector<float>& x = out[source.tensors()[i].name];
    x.resize(static_cast<std::size_t>(shape.elements()));
    EXPECT_OK(source.read_f32(i, 0, shape.rows(), x.data()));
  }
  return out;
}

class Transforms : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    ASSERT_OK_AND_ASSIGN(source_, open_tiny(GetParam()));
    ASSERT_OK_AND_ASSIGN(before_, logits_of(source_));
  }
  Source source_;
  std::vector<float> before_;
};

TEST_P(Transforms, RotateThenScaleKeepsTheFunction) {
  const TransformOptions options = options_for(*source_);
  Notes notes;
  const std::vector<std::string> rotate = {"rotate"}, awq = {"awq"};
  ASSERT_OK_AND_ASSIGN(const Source turned, transform(source_, rotate, nullptr, options, notes));
  EXPECT_TRUE(notes.has("rotate: every head of the values"));
  EXPECT_TRUE(notes.has("rotate: the residual stream")) << notes.text;
  const calib::ModelStats stats = stats_of(turned);
  ASSERT_OK_AND_ASSIGN(const Source scaled, transform(turned, awq, &stats, options, notes));
  EXPECT_TRUE(notes.has("awq: scales in ")) << notes.text;
  EXPECT_FALSE(notes.has("queries and keys")) << notes.text;  // awq does not ask for them
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(scaled));
  EXPECT_LE(greatest_difference(before_, after), 1e-3f);
  EXPECT_NE(weights(*scaled), weights(*turned));
}

// The greatest inputs of channels become their fourth root for int8 weights and their square root for others,
// so that one scale fits all better.
TEST_P(Transforms, EqualizingKeepsTheFunctionAndEvensInputsOut) {
  const calib::ModelStats stats = stats_of(source_);
  const std::vector<std::string> names = {"equalize"};
  for (const Format type : {Format::kI8, Format::kQ4_0}) {
    SCOPED_TRACE(format_info(type).name);
    Notes notes;
    TransformOptions options = options_for(*source_);
    options.types.assign(options.types.size(), type);
    ASSERT_OK_AND_ASSIGN(const Source scaled, transform(source_, names, &stats, options, notes));
    EXPECT_TRUE(notes.has("equalize: scales in ")) << notes.text;
    ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(scaled));
    EXPECT_LE(greatest_difference(before_, after), 1e-3f);
    if (source_->config().n_head != source_->config().n_head_kv) continue;
    const std::string name = "blk.0.attn_output.weight";
    const float left = type == Format::kI8 ? 0.25f : 0.5f;
    const std::vector<float> was = stats.inputs.at(name)[0].abs_max,
                             is = stats_of(scaled).inputs.at(name)[0].abs_max;
    for (std::size_t j = 0; j < was.size(); ++j)
      EXPECT_NEAR(is[j] / std::pow(was[j], left), 1.0f, 1e-2f) << j;
  }
}

TEST_P(Transforms, SmoothingKeepsTheFunctionAndEvensOut) {
  const calib::ModelStats stats = stats_of(source_);
  const std::vector<std::string> names = {"smoothquant"};
  Notes notes;
  std::map<std::string, std::vector<calib::Moments>, std::less<>> moments;
  for (const auto& [tensor, entries] : stats.inputs) moments[tensor] = calib::moments(entries);
  TransformOptions options = options_for(*source_);
  options.moments = &moments;
  ASSERT_OK_AND_ASSIGN(const Source scaled, transform(source_, names, &stats, options, notes));
  // The moments follow: they are those of the changed model.
  for (const auto& [tensor, entries] : stats_of(scaled).inputs) {
    const std::vector<calib::Moments> measured = calib::moments(entries);
    for (std::size_t e = 0; e < measured.size(); ++e) {
      if (entries[e].rows < calib::kFewRows) continue;
      const std::vector<float>&got = moments[tensor][e].mean_square, &want = measured[e].mean_square;
      for (std::size_t j = 0; j < want.size(); ++j)
        ASSERT_NEAR(got[j] / want[j], 1.0f, 2e-2f) << tensor << " " << j;
    }
  }
  EXPECT_TRUE(notes.has("smoothquant: scales in ")) << notes.text;
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(scaled));
  EXPECT_LE(greatest_difference(before_, after), 1e-3f);
  // Inputs and weights of every channel are as large as each other now.
  const char* name = "blk.0.attn_output.weight";
  if (source_->config().n_head != source_->config().n_head_kv) return;
  const calib::ModelStats now = stats_of(scaled);
  const Shape& shape = scaled->tensors()[*scaled->find(name)].shape;
  const std::vector<float> w = weights(*scaled)[name];
  for (std::int64_t j = 0; j < shape.row_length(); ++j) {
    float most = 0;
    for (std::int64_t r = 0; r < shape.rows(); ++r) {
      most = std::max(most, std::fabs(w[static_cast<std::size_t>(r * shape.row_length() + j)]));
    }
    EXPECT_NEAR(now.inputs.at(name)[0].abs_max[static_cast<std::size_t>(j)] / most, 1.0f, 1e-2f);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Transforms, ::testing::ValuesIn(narrow::testing::kTinyModels),
                         [](const auto& m) {
                           std::string s = m.param;
                           std::replace(s.begin(), s.end(), '-', '_');
                           return s;
                         });

TEST(Transform, SameWeightsForAnyNumberOfThreads) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : {"llama", "qwen3_moe"}) {
    ASSERT_OK_AND_ASSIGN(const Source source, open_tiny(name));
    const calib::ModelStats stats = stats_of(source);
    std::map<std::string, std::vector<float>> first;
    for (const int threads : {1, 3}) {
      set_thread_count(threads);
      const std::vector<std::string> awq = {"awq"};
      ASSERT_OK_AND_ASSIGN(const Source scaled,
                           transform(source, awq, &stats, options_for(*source), null_progress()));
      if (first.empty()) first = weights(*scaled);
      EXPECT_EQ(first, weights(*scaled)) << name;
    }
    set_thread_count(0);
  }
}

TEST(Transform, RefusesWhatItCannotDo) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const Source source, open_tiny("llama"));
  const calib::ModelStats stats = stats_of(source);
  TransformOptions options = options_for(*source);
  Notes notes;
  const auto error = [&](std::vector<std::string> names, const calib::ModelStats* s) {
    const auto r = transform(source, names, s, options, notes);
    return r.ok() ? std::string() : r.error().message;
  };
  EXPECT_EQ(error({"spin"}, &stats),
            "method: there is no transform 'spin'; known are rotate, awq, smoothquant, equalize");
  EXPECT_EQ(error({"awq"}, nullptr), "method 'awq' needs calibration: name texts or statistics");
  EXPECT_EQ(error({"rotate", "awq"}, &stats),
            "method 'awq': its statistics must be of the rotated model: rotate, calibrate, then scale");
  EXPECT_EQ(error({}, nullptr), "");
  calib::ModelStats other = stats_of(source);
  other.inputs["blk.0.attn_q.weight"][0].k = 95;
  EXPECT_NE(error({"awq"}, &other).find("'blk.0.attn_q.weight' has 96 inputs, its statistics 95"),
            std::string::npos);
  notes.stop = true;
  EXPECT_EQ(error({"awq"}, &stats), "cancelled");
  notes.stop = false;
  // A matrix without statistics keeps its scales, and is named.
  other = stats_of(source);
  other.inputs.erase("blk.1.ffn_down.weight");
  EXPECT_EQ(error({"awq"}, &other), "");
  EXPECT_TRUE(notes.has("awq: no statistics for 'blk.1.ffn_down.weight', which keep")) << notes.text;
  options.types.pop_back();
  EXPECT_NE(error({"awq"}, &stats).find("types for"), std::string::npos);
}

}  // namespace
}  // namespace narrow::pipeline

#include "calib/collect.h"

#include <cmath>
#include <limits>
#include <map>

#include "model/tiny_models.h"
#include "runtime/session.h"
#include "runtime/toy_source.h"
#include "testing/testing.h"

namespace narrow::calib {
namespace {

using model::ModelSource;
using runtime::Tap;
using runtime::ToySource;

// Keeps what it is told.
class Notes final : public ProgressSink {
 public:
  void begin(std::string_view, std::uint64_t total, std::string_view) override { total_ = total; }
  void update(std::uint64_t done, std::string_view) override { last_ = done; }
  void end() override { ended_ = true; }
  void note(std::string_view line) override { text_ += std::string(line) + "\n"; }
  bool cancelled() const override { return cancel; }
  const std::string& text() const { return text_; }
  bool complete() const { return ended_ && total_ > 0 && last_ == total_; }
  bool has(std::string_view part) const { return text_.find(part) != std::string::npos; }
  bool cancel = false;

 private:
  std::string text_;
  std::uint64_t total_ = 0, last_ = 0;
  bool ended_ = false;
};

TokenWindows windows(std::vector<std::int64_t> lengths, std::int32_t n_vocab) {
  TokenWindows w;
  w.lengths = std::move(lengths);
  std::int32_t t = 3;
  for (const std::int64_t n : w.lengths) {
    for (std::int64_t i = 0; i < n; ++i) w.tokens.push_back(t = (t * 7 + 5) % n_vocab);
  }
  return w;
}

// What a whole run shows: every row of every tap, added up in the plainest way.
struct Plain {
  std::int64_t rows = 0;
  std::vector<double> sum, square, most;
};
class PlainSink final : public runtime::TapSink {
 public:
  using Key = std::tuple<std::int64_t, Tap, std::int64_t>;  // layer, tap, expert
  Status take(std::int64_t layer, Tap tap, std::int64_t expert, ops::ConstMatrix x) override {
    Plain& p = seen[{layer, tap, expert}];
    for (auto* v : {&p.sum, &p.square, &p.most}) v->resize(static_cast<std::size_t>(x.cols));
    for (std::int64_t r = 0; r < x.rows; ++r, ++p.rows) {
      for (std::int64_t c = 0; c < x.cols; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double v = x.row(r)[c];
        p.sum[i] += v;
        p.square[i] += v * v;
        p.most[i] = std::max(p.most[i], std::fabs(v));
      }
    }
    return {};
  }
  std::map<Key, Plain> seen;
};

void expect_close(const std::vector<double>& got, const std::vector<double>& want, double scale) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-4 * scale) << i;
}

// collect() against a run of the whole model, window by window.
void compare_with_whole_run(const std::shared_ptr<const ModelSource>& source) {
  const model::ModelConfig& config = source->config();
  const TokenWindows w = windows({40, 7, 40, 1}, static_cast<std::int32_t>(config.n_vocab));
  Notes notes;
  ASSERT_OK_AND_ASSIGN(const ModelStats stats, collect(source, w, notes));
  EXPECT_TRUE(notes.complete());
  EXPECT_EQ(stats.chunks, 4);
  EXPECT_EQ(stats.chunk_tokens, 40);

  PlainSink plain;
  runtime::LoadOptions load;
  load.compute = runtime::Compute::kFloat;
  ASSERT_OK_AND_ASSIGN(const auto model, runtime::LoadedModel::load(source, load));
  runtime::SessionOptions so;
  so.n_ctx = 64;
  so.taps = &plain;
  so.cache_keys = so.cache_values = Format::kF32;
  ASSERT_OK_AND_ASSIGN(const auto session, runtime::Session::create(model, so));
  std::size_t at = 0;
  std::vector<float> logits;
  for (const std::int64_t n : w.lengths) {
    ASSERT_OK(session->truncate(0));
    ASSERT_OK(session->forward(std::span(w.tokens).subspan(at, static_cast<std::size_t>(n)),
                               runtime::LogitRows::kAll, logits));
    at += static_cast<std::size_t>(n);
  }

  const std::vector<std::size_t> tensors = calibrated_tensors(*source);
  EXPECT_EQ(stats.inputs.size(), tensors.size());
  for (const std::size_t i : tensors) {
    const TensorInfo& t = source->tensors()[i];
    const Tap tap = runtime::tap_of(t.name);
    const std::int64_t layer = tap == Tap::kHead ? config.n_layer : std::stoll(t.name.substr(4));
    const auto& entries = stats.inputs.at(t.name);
    const bool experts = t.shape.rank() == 3;
    ASSERT_EQ(entries.size(), static_cast<std::size_t>(experts ? t.shape[0] : 1)) << t.name;
    for (std::size_t e = 0; e < entries.size(); ++e) {
      SCOPED_TRACE(t.name);
      const InputStats& s = entries[e];
      EXPECT_EQ(s.k, t.shape.row_length());
      const auto it = plain.seen.find({layer, tap, experts ? static_cast<std::int64_t>(e) : -1});
      if (it == plain.seen.end()) {
        EXPECT_EQ(s.rows, 0);
        continue;
      }
      const Plain& p = it->second;
      EXPECT_EQ(s.rows, p.rows);
      const double scale = 1e-3 + *std::max_element(p.square.begin(), p.square.end());
      expect_close(s.sum_square, p.square, scale);
      expect_close(s.sum, p.sum, scale + static_cast<double>(p.rows));
      expect_close(std::vector<double>(s.abs_max.begin(), s.abs_max.end()), p.most, std::sqrt(scale));
    }
  }
}

TEST(Collect, TheToysStatisticsAreThoseOfAWholeRun) { compare_with_whole_run(std::make_shared<ToySource>()); }

TEST(Collect, EveryArchitecturesStatisticsAreThoseOfAWholeRun) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : model::kTinyModels) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(const auto source, ModelSource::open(model::tiny(name)));
    compare_with_whole_run(source);
  }
}

TEST(Collect, TheFirstLayersInputIsTheNormedEmbedding) {
  const auto source = std::make_shared<ToySource>();
  const TokenWindows w = windows({20, 12}, 11);
  ASSERT_OK_AND_ASSIGN(const ModelStats stats, collect(source, w, null_progress()));
  const std::vector<float> embedding = model::read_all(*source, *source->find("token_embd.weight"));
  const std::vector<float> gain = model::read_all(*source, *source->find("blk.0.attn_norm.weight"));
  const std::size_t k = gain.size();
  std::vector<double> square(k, 0.0);
  for (const std::int32_t id : w.tokens) {
    const float* row = embedding.data() + static_cast<std::size_t>(id) * k;
    double mean = 0;
    for (std::size_t i = 0; i < k; ++i) mean += static_cast<double>(row[i]) * row[i] / static_cast<double>(k);
    for (std::size_t i = 0; i < k; ++i) {
      const double x = row[i] / std::sqrt(mean + source->config().norm_eps) * gain[i];
      square[i] += x * x;
    }
  }
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    const InputStats& s = stats.inputs.at(name)[0];
    EXPECT_EQ(s.rows, 32);
    for (std::size_t i = 0; i < k; ++i) EXPECT_NEAR(s.sum_square[i], square[i], 1e-4 * square[i]) << name;
  }
}

TEST(Collect, OneTokenIsEnough) {
  const auto source = std::make_shared<ToySource>();
  ASSERT_OK_AND_ASSIGN(const ModelStats stats, collect(source, windows({1}, 11), null_progress()));
  for (const auto& [name, entries] : stats.inputs) EXPECT_EQ(entries[0].rows, 1) << name;
}

TEST(Collect, ModelsWithNansAreNamedOrRefused) {
  struct Damaged final : model::ModelSource {
    // NaN in one row of a matrix, or in all of it.
    Damaged(std::string name, bool all) : name_(std::move(name)), all_(all) {}
    const std::filesystem::path& path() const override { return toy_.path(); }
    bool is_gguf() const override { return true; }
    const model::ModelConfig& config() const override { return toy_.config(); }
    const std::vector<TensorInfo>& tensors() const override { return toy_.tensors(); }
    TensorView view(std::size_t) const override { return {}; }
    Status read_raw(std::size_t i, std::int64_t b, std::int64_t e, std::byte* out) const override {
      NARROW_TRY(toy_.read_raw(i, b, e, out));
      if (tensors()[i].name != name_) return {};
      const std::int64_t k = tensors()[i].shape.row_length();
      auto* x = reinterpret_cast<float*>(out);
      for (std::int64_t r = b; r < e; ++r) {
        if (all_ || r == 2) x[(r - b) * k] = std::numeric_limits<float>::quiet_NaN();
      }
      return {};
    }
    Status read_f32(std::size_t i, std::int64_t b, std::int64_t e, float* out) const override {
      return read_raw(i, b, e, reinterpret_cast<std::byte*>(out));
    }
    void drop(std::size_t) const override {}
    Result<io::gguf::Metadata> gguf_metadata() const override { return io::gguf::Metadata(); }
    std::uint64_t file_bytes() const override { return 0; }
    Result<std::string> digest() const override { return std::string(); }
    model::TokenIds token_ids() const override { return {}; }
    void name_tensors() {
      for (std::size_t i = 0; i < tensors().size(); ++i) index_[tensors()[i].name] = i;
    }
    ToySource toy_;
    std::string name_;
    bool all_;
  };
  const auto some = std::make_shared<Damaged>("token_embd.weight", false);
  some->name_tensors();
  Notes notes;
  ASSERT_OK_AND_ASSIGN(const ModelStats stats, collect(some, windows({30}, 11), notes));
  EXPECT_GT(stats.inputs.at("blk.0.attn_q.weight")[0].dropped, 0);
  EXPECT_TRUE(notes.has("rows with NaN or infinity left out")) << notes.text();
  const auto all = std::make_shared<Damaged>("token_embd.weight", true);
  all->name_tensors();
  const auto refused = collect(all, windows({30}, 11), notes);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kNumeric);
}

TEST(Collect, CancellingEndsIt) {
  Notes notes;
  notes.cancel = true;
  const auto r = collect(std::make_shared<ToySource>(), windows({5}, 11), notes);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, ErrorCode::kCancelled);
}

// ---- check_stats

ModelStats toy_stats(const std::shared_ptr<const ModelSource>& source) {
  auto stats = collect(source, windows({40}, 11), null_progress());
  EXPECT_OK(stats);
  return std::move(stats).value();
}

TEST(CheckStats, StatisticsOfTheModelItselfAreFine) {
  const auto source = std::make_shared<ToySource>();
  ModelStats stats = toy_stats(source);
  Notes notes;
  ASSERT_OK(check_stats(stats, *source, "s.gguf", notes));
  EXPECT_EQ(notes.text(), "");
}

TEST(CheckStats, WhatCannotBeOfThisModelIsRefusedInOneLine) {
  const auto source = std::make_shared<ToySource>();
  const struct {
    std::string words;
    std::function<void(ModelStats&)> change;
  } cases[] = {
      {"none of its 1 matrices ('model.layers.0.q_proj.weight')",
       [](ModelStats& s) {
         s.inputs.clear();
         s.inputs["model.layers.0.q_proj.weight"].push_back(InputStats::of_width(16));
       }},
      {"none of its 0 matrices", [](ModelStats& s) { s.inputs.clear(); }},
      {"'blk.0.attn_q.weight' has statistics of 17 inputs, in the model toy.gguf it has 16",
       [](ModelStats& s) { s.inputs["blk.0.attn_q.weight"][0] = InputStats::of_width(17); }},
      {"'blk.1.ffn_up.weight' has statistics of 2 experts, the model toy.gguf has 1",
       [](ModelStats& s) { s.inputs["blk.1.ffn_up.weight"].push_back(InputStats::of_width(16)); }},
      {"'blk.2.attn_q.weight' is in a layer that the model toy.gguf does not have (it has 2)",
       [](ModelStats& s) { s.inputs["blk.2.attn_q.weight"].push_back(InputStats::of_width(16)); }},
  };
  for (const auto& c : cases) {
    ModelStats stats = toy_stats(source);
    c.change(stats);
    const Status s = check_stats(stats, *source, "s.gguf", null_progress());
    ASSERT_FALSE(s.ok()) << c.words;
    EXPECT_EQ(s.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(s.error().message.find("s.gguf: "), std::string::npos) << s.error().message;
    EXPECT_NE(s.error().message.find(c.words), std::string::npos) << s.error().message;
    EXPECT_EQ(s.error().message.find('\n'), std::string::npos);
  }
}

TEST(CheckStats, WhatWorksWithANeutralTreatmentIsNoted) {
  const auto source = std::make_shared<ToySource>();
  const struct {
    std::string words;
    std::function<void(ModelStats&)> change;
  } cases[] = {
      {"no statistics for 7 of 15 matrices, which are quantized without: blk.1.attn_q.weight",
       [](ModelStats& s) {
         std::erase_if(s.inputs, [](const auto& item) { return item.first.starts_with("blk.1."); });
       }},
      {"no statistics for 1 of 15 matrices, which are quantized without: token_embd.weight",
       [](ModelStats& s) { s.inputs.erase("token_embd.weight"); }},
      {"no data for 1 matrices, whose inputs all count the same: blk.0.attn_q.weight",
       [](ModelStats& s) { s.inputs["blk.0.attn_q.weight"][0].rows = 0; }},
      {"nothing but zeros for 1 matrices, whose inputs all count the same: blk.0.attn_q.weight",
       [](ModelStats& s) { s.inputs["blk.0.attn_q.weight"][0].sum_square.assign(16, 0.0); }},
      {"1 inputs are always 0 and count next to nothing: blk.0.attn_q.weight (1, first 3)",
       [](ModelStats& s) { s.inputs["blk.0.attn_q.weight"][0].sum_square[3] = 0.0; }},
      {"1 of its matrices are not in the model and are left out, e.g. blk.0.something.weight",
       [](ModelStats& s) { s.inputs["blk.0.something.weight"].push_back(InputStats::of_width(3)); }},
  };
  for (const auto& c : cases) {
    ModelStats stats = toy_stats(source);
    c.change(stats);
    Notes notes;
    ASSERT_OK(check_stats(stats, *source, "s.gguf", notes));
    EXPECT_TRUE(notes.has(c.words)) << c.words << " is not in " << notes.text();
    EXPECT_FALSE(stats.inputs.contains("blk.0.something.weight"));
    for (const auto& [name, entries] : stats.inputs) {
      for (const Moments& m : moments(entries)) {
        ASSERT_EQ(m.mean_square.size(), static_cast<std::size_t>(entries[0].k));
        for (const float v : m.mean_square) EXPECT_TRUE(std::isfinite(v) && v > 0.0f) << name;
      }
    }
  }
}

}  // namespace
}  // namespace narrow::calib

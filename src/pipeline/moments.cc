#include "pipeline/moments.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/thread_team.h"
#include "ops/gram.h"

namespace narrow::pipeline {
namespace {

using calib::LayerRun;
using calib::WalkStep;
using runtime::Tap;

// What a row of a step is for: 1 to quantize by, 2 to judge by; windows' first tokens apart.
struct RowUse {
  std::uint8_t use = 1;
  // How many common tokens it counts as; 0: as its energy says.
  float weight = 0;
};
using Use = std::vector<RowUse>;

// No token counts for more than kMostEnergy times the energy of a common one. Attention sinks are so large
// that they would drown all others; but all others attend to them, so that their own errors matter, too. A
// window's first token, which is one in most models, counts as much as kFirstShare of the window's other
// tokens.
constexpr float kMostEnergy = 16.0f;
constexpr float kFirstShare = 0.25f;

struct Rows {
  AlignedBuffer<float> data;
  Use use;
  std::int64_t n = 0, k = 0;

  float energy(std::int64_t r) const {
    double sum = 0;
    for (std::int64_t j = 0; j < k; ++j) {
      const double v = static_cast<double>(data[static_cast<std::size_t>(r * k + j)]);
      sum += v * v;
    }
    return static_cast<float>(sum);
  }

  // Factors that bring each row to the energy it may have; 0 for a row that is not finite here or in `other`
  // (null for none), which is left out.
  std::vector<float> factors(const Rows* other) const {
    std::vector<float> energy(static_cast<std::size_t>(n));
    parallel_for(n, [&](std::int64_t r, int) {
      const float own = this->energy(r);
      const bool finite = std::isfinite(own) && (other == nullptr || std::isfinite(other->energy(r)));
      energy[static_cast<std::size_t>(r)] = finite ? own : -1.0f;
    });
    std::vector<float> sorted = energy;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    const float common = *middle;
    std::vector<float> out(energy.size(), 1.0f);
    for (std::size_t r = 0; r < out.size(); ++r) {
      if (energy[r] < 0) out[r] = 0;
      if (!(common > 0) || !(energy[r] > 0)) continue;
      const float allowed =
          use[r].weight > 0 ? use[r].weight * common : std::min(energy[r], kMostEnergy * common);
      out[r] = std::sqrt(allowed / energy[r]);
    }
    return out;
  }

  // The rows with this use, times their factors.
  ops::Matrix select(std::uint8_t which, const std::vector<float>& factors, AlignedBuffer<float>& to) const {
    to.reserve_at_least(static_cast<std::size_t>(n * k));
    std::vector<std::int64_t> chosen;
    for (std::int64_t r = 0; r < n; ++r) {
      const auto at = static_cast<std::size_t>(r);
      if (use[at].use == which && factors[at] != 0) chosen.push_back(r);
    }
    const auto count = static_cast<std::int64_t>(chosen.size());
    parallel_for(count, [&](std::int64_t i, int) {
      const std::int64_t r = chosen[static_cast<std::size_t>(i)];
      const float factor = factors[static_cast<std::size_t>(r)];
      float* out = to.data() + i * k;
      for (std::int64_t j = 0; j < k; ++j) out[j] = factor * data[static_cast<std::size_t>(r * k + j)];
    });
    return {to.data(), count, k};
  }
};

// Copies what passes a layer in one step, and ends the run behind `last`.
class Recorder final : public runtime::TapSink {
 public:
  Recorder(const Taps& wanted, std::optional<Tap> last) : wanted_(wanted), last_(last) {}
  void begin(const Use& use) {
    use_ = &use;
    ended_ = false;
    for (auto& [key, rows] : rows_) rows.n = 0;
  }
  // What the run of a layer that this watched came to.
  Status result(const Status& run) const { return ended_ ? Status() : run; }
  Status take(std::int64_t, Tap tap, std::int64_t expert, ops::ConstMatrix x) override {
    if (among(wanted_, tap)) copy(tap, expert, x);
    if (tap != last_) return {};
    ended_ = true;
    return make_error(ErrorCode::kCancelled, "nothing behind this is of interest");
  }
  std::map<TapKey, Rows>& rows() { return rows_; }

 private:
  void copy(Tap tap, std::int64_t expert, ops::ConstMatrix x) {
    Rows& rows = rows_[{tap, expert}];
    rows.n = x.rows;
    rows.k = x.cols;
    rows.data.reserve_at_least(static_cast<std::size_t>(x.rows * x.cols));
    for (std::int64_t r = 0; r < x.rows; ++r) std::copy_n(x.row(r), x.cols, rows.data.data() + r * x.cols);
    // Which rows an expert got is not known here: all count.
    rows.use = expert < 0 ? *use_ : Use(static_cast<std::size_t>(x.rows));
  }

  const Taps& wanted_;
  std::optional<Tap> last_;
  bool ended_ = false;
  const Use* use_ = nullptr;
  std::map<TapKey, Rows> rows_;
};

Use uses_of(const WalkStep& step, const calib::TokenWindows& windows, std::int64_t held_out_every) {
  Use use;
  for (std::size_t i = 0; i < step.count; ++i) {
    const std::size_t window = step.first + i;
    const std::int64_t n = windows.lengths[window];
    const bool judge =
        held_out_every > 0 && static_cast<std::int64_t>(window) % held_out_every == held_out_every - 1;
    for (std::int64_t r = 0; r < n; ++r)
      use.push_back(
          {static_cast<std::uint8_t>(judge ? 2 : 1), r == 0 ? kFirstShare * static_cast<float>(n) : 0.0f});
  }
  return use;
}

void start(AlignedBuffer<float>& b, std::int64_t k) {
  if (b.size() != 0) return;
  b.resize(static_cast<std::size_t>(k * k));
  std::fill_n(b.data(), b.size(), 0.0f);
}

void add_sums(ops::ConstMatrix x, std::vector<double>& sums) {
  sums.resize(static_cast<std::size_t>(x.cols), 0.0);
  constexpr std::int64_t kColumns = 64;
  parallel_for((x.cols + kColumns - 1) / kColumns, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kColumns, end = std::min(x.cols, begin + kColumns);
    for (std::int64_t r = 0; r < x.rows; ++r) {
      for (std::int64_t j = begin; j < end; ++j) {
        sums[static_cast<std::size_t>(j)] += static_cast<double>(x.row(r)[j]);
      }
    }
  });
}

// `o`: the same tokens' rows in the original, or null.
Status add(const Rows& q, const Rows* o, Moments& m) {
  if (q.n == 0) return {};
  AlignedBuffer<float> scratch, scratch_o;
  m.k = q.k;
  start(m.q, m.k);
  const std::vector<float> factors = q.factors(o);
  const ops::ConstMatrix x = q.select(1, factors, scratch);
  m.tokens += x.rows;
  add_sums(x, m.mean_q);
  NARROW_TRY(ops::add_gram(x, m.q.data()));
  if (o != nullptr) {
    start(m.difference, m.k);
    const ops::Matrix lost = o->select(1, factors, scratch_o);
    parallel_for(lost.rows, [&](std::int64_t r, int) {
      for (std::int64_t j = 0; j < lost.cols; ++j) lost.row(r)[j] -= x.row(r)[j];
    });
    m.matched_tokens += lost.rows;
    add_sums(lost, m.mean_difference);
    NARROW_TRY(ops::add_cross(lost, x, m.difference.data()));
  }
  const ops::ConstMatrix judge = q.select(2, factors, scratch);
  if (judge.rows == 0) return {};
  start(m.held_out, m.k);
  m.held_out_tokens += judge.rows;
  return ops::add_gram(judge, m.held_out.data());
}

// Experts that few tokens chose lean on what the others saw.
void blend_experts(std::map<TapKey, Moments>& all, Tap tap, std::int64_t n_expert, std::int64_t k) {
  Moments mean;
  mean.k = k;
  start(mean.q, k);
  for (const auto& [key, m] : all) {
    if (key.first != tap || m.q.size() == 0) continue;
    mean.tokens += m.tokens;
    for (std::size_t i = 0; i < mean.q.size(); ++i) mean.q[i] += m.q[i];
  }
  if (mean.tokens == 0) return;
  const float share = static_cast<float>(kExpertPrior) / static_cast<float>(mean.tokens);
  for (std::int64_t e = 0; e < n_expert; ++e) {
    Moments& m = all[{tap, e}];
    m.k = k;
    start(m.q, k);
    m.tokens += kExpertPrior;
    for (std::size_t i = 0; i < mean.q.size(); ++i) m.q[i] += share * mean.q[i];
  }
}

}  // namespace

void Moments::finish() {
  const auto scale = [](AlignedBuffer<float>& b, std::int64_t n) {
    if (n == 0) return;
    for (float& v : b.span()) v = static_cast<float>(static_cast<double>(v) / static_cast<double>(n));
  };
  for (auto* b : {&q, &held_out}) {
    if (b->size() != 0) ops::fill_upper(k, b->data());
  }
  scale(q, tokens);
  scale(difference, matched_tokens);
  scale(held_out, held_out_tokens);
  for (double& v : mean_q) v /= static_cast<double>(std::max<std::int64_t>(tokens, 1));
  for (double& v : mean_difference) v /= static_cast<double>(std::max<std::int64_t>(matched_tokens, 1));
}

std::vector<float> Moments::diagonal() const {
  std::vector<float> d(static_cast<std::size_t>(k));
  for (std::size_t j = 0; j < d.size(); ++j) d[j] = q[j * d.size() + j];
  return d;
}

Result<std::map<TapKey, Moments>> collect_moments(const std::shared_ptr<const model::ModelSource>& source,
                                                  const std::shared_ptr<const model::ModelSource>& overlay,
                                                  std::int64_t layer, const calib::TokenWindows& windows,
                                                  calib::Stream& original, calib::Stream& quantized,
                                                  const MomentOptions& options, ProgressSink& progress) {
  std::map<TapKey, Moments> out;
  std::optional<LayerRun> o;
  if (options.match_every > 0) {
    NARROW_ASSIGN(o, LayerRun::create(source, layer, windows));
  }
  NARROW_ASSIGN(LayerRun q, LayerRun::create(overlay, layer, windows, runtime::Compute::kStored));
  const bool routed = source->config().layers[static_cast<std::size_t>(layer)].moe;
  const auto wants = [&](Tap tap) { return among(options.taps, tap); };
  // Behind which nothing has to be computed.
  const auto last_of = [&](bool moves) -> std::optional<Tap> {
    if (moves || (routed && (wants(Tap::kExpert) || wants(Tap::kExpertDown)))) return std::nullopt;
    for (const Tap tap : {Tap::kFfnDown, Tap::kFeedForward, Tap::kAttnOutput, Tap::kAttention}) {
      if (wants(tap)) return tap;
    }
    return std::nullopt;
  };
  Recorder seen_o(options.taps, last_of(options.move_original)),
      seen_q(options.taps, last_of(options.move_quantized));
  AlignedBuffer<float> scratch, scratch_o;
  const auto copy = [](const ops::Matrix& from, AlignedBuffer<float>& to) -> ops::Matrix {
    to.reserve_at_least(static_cast<std::size_t>(from.rows * from.cols));
    std::copy_n(from.data, from.rows * from.cols, to.data());
    return {to.data(), from.rows, from.cols};
  };
  for (std::size_t i = 0; i < q.steps().size(); ++i) {
    const WalkStep& s = q.steps()[i];
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const Use use = uses_of(s, windows, options.held_out_every);
    const bool matched = o.has_value() && i % options.match_every == 0;
    seen_q.begin(use);
    if (matched) {
      seen_o.begin(use);
      const ops::Matrix from = original.rows(s.begin, s.tokens);
      const ops::Matrix x = options.move_original ? from : copy(from, scratch_o);
      NARROW_TRY(seen_o.result(o->run(s, x, &seen_o, options.half)));
    }
    const ops::Matrix from = quantized.rows(s.begin, s.tokens);
    const ops::Matrix x = options.move_quantized ? from : copy(from, scratch);
    NARROW_TRY(seen_q.result(q.run(s, x, &seen_q, options.half)));
    for (const auto& [key, rows] : seen_q.rows()) {
      // Experts are chosen anew in each model: their rows do not belong together.
      const bool paired = matched && key.second < 0;
      NARROW_TRY(add(rows, paired ? &seen_o.rows()[key] : nullptr, out[key]));
    }
  }
  const model::ModelConfig& c = source->config();
  if (routed && wants(Tap::kExpert)) blend_experts(out, Tap::kExpert, c.n_expert, c.n_embd);
  if (routed && wants(Tap::kExpertDown)) blend_experts(out, Tap::kExpertDown, c.n_expert, c.n_ff_expert);
  for (auto& [key, m] : out) m.finish();
  return out;
}

}  // namespace narrow::pipeline

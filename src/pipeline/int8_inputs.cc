#include "pipeline/int8_inputs.h"

#include <algorithm>
#include <array>

#include "base/rng.h"
#include "calib/collect.h"
#include "calib/stats.h"
#include "quant/int8.h"
#include "quant/outliers.h"
#include "runtime/taps.h"

namespace narrow::pipeline {
namespace {

using runtime::Tap;

constexpr std::int64_t kSampleRows = 1024;  // of each input, about
constexpr std::int64_t kRandomWindows = 8;
constexpr std::int64_t kOutlierShare = 32, kStaticOutlierShare = 16, kDownOutlierShare = 8;  // at most

bool is_down(Tap tap) { return tap == Tap::kFfnDown || tap == Tap::kExpertDown; }

// Of the inputs; with static scales more, most where products of two activations have tails without bound.
std::int64_t outlier_share(Tap tap, bool static_scale) {
  if (!static_scale) return kOutlierShare;
  return is_down(tap) ? kDownOutlierShare : kStaticOutlierShare;
}

// The head has none: its rounding noise is the logits' own.
quant::Room room_of(Tap tap) {
  if (tap == Tap::kHead) return {1, 1};
  return {is_down(tap) ? 1.5 : 1.0, 2};
}

std::string stem_of(const TensorInfo& t) {
  if (t.name == "token_embd.weight") return "output";
  return t.name.substr(0, t.name.size() - std::string_view(".weight").size());
}

// What enters each product: maxima and moments of all rows, and every stride-th row. Strides are powers of
// two, so that windows' first tokens, the usual attention sinks, are among them. Experts of a layer count as
// one: they share their columns.
class Sampler final : public runtime::TapSink {
 public:
  explicit Sampler(std::int64_t tokens) {
    while (tokens / stride_ > kSampleRows) stride_ *= 2;
  }
  Status take(std::int64_t, Tap tap, std::int64_t, ops::ConstMatrix x) override {
    Seen& seen = taps_[static_cast<std::size_t>(tap)];
    if (seen.all.k == 0) seen.all = calib::InputStats::of_width(x.cols);
    NARROW_TRY(seen.all.add(x));
    for (std::int64_t r = 0; r < x.rows; ++r, ++seen.count) {
      if (seen.count % stride_ == 0) seen.rows.insert(seen.rows.end(), x.row(r), x.row(r) + x.cols);
    }
    return {};
  }
  // [rows, k]; no rows where nothing was seen.
  ops::ConstMatrix rows(Tap tap) const {
    const Seen& seen = taps_[static_cast<std::size_t>(tap)];
    const auto n = static_cast<std::int64_t>(seen.rows.size());
    return {seen.rows.data(), seen.all.k > 0 ? n / seen.all.k : 0, seen.all.k};
  }
  const calib::InputStats& all(Tap tap) const { return taps_[static_cast<std::size_t>(tap)].all; }

 private:
  struct Seen {
    calib::InputStats all;
    std::int64_t count = 0;
    std::vector<float> rows;
  };
  std::array<Seen, static_cast<std::size_t>(Tap::kHead) + 1> taps_;
  std::int64_t stride_ = 1;
};

class Chooser {
 public:
  Chooser(const model::ModelSource& source, const Int8InputOptions& options)
      : source_(source), options_(options) {}

  // The inputs of the matrices at `indices`, which saw what the sampler did.
  Status choose(const std::vector<std::size_t>& indices, const Sampler& seen) {
    std::map<Tap, std::vector<std::size_t>> groups;
    for (const std::size_t i : indices) groups[runtime::tap_of(source_.tensors()[i].name)].push_back(i);
    for (const auto& [tap, tensors] : groups) {
      const ops::ConstMatrix x = seen.rows(tap);
      const calib::InputStats& all = seen.all(tap);
      Int8Input input;
      quant::OutlierOptions outliers;
      const std::int64_t share = outlier_share(tap, options_.static_scales);
      outliers.most = options_.outliers >= 0 ? options_.outliers : x.cols / share;
      if (options_.static_scales) {
        outliers.by_size = outliers.most;
        outliers.abs_max = all.abs_max;
      }
      input.outliers = quant::choose_outliers(x, outliers);
      if (all.rows > 0) {
        std::vector<calib::InputStats> entry;
        entry.push_back(all.copy());
        input.mean_square = std::move(calib::moments(entry).front().mean_square);
      }
      if (options_.static_scales) {
        input.scale = quant::static_scale(x, all.abs_max, input.outliers, room_of(tap));
      }
      for (const std::size_t i : tensors) out_[stem_of(source_.tensors()[i])] = input;
    }
    return {};
  }
  std::map<std::string, Int8Input> take() { return std::move(out_); }

 private:
  const model::ModelSource& source_;
  const Int8InputOptions& options_;
  std::map<std::string, Int8Input> out_;
};

}  // namespace

Result<std::map<std::string, Int8Input>> choose_int8_inputs(
    const std::shared_ptr<const model::ModelSource>& source, const calib::TokenWindows& windows,
    const Int8InputOptions& options, ProgressSink& progress) {
  const std::int64_t n_layer = source->config().n_layer;
  const std::vector<std::size_t> tensors = calib::calibrated_tensors(*source);
  Chooser chooser(*source, options);
  progress.begin("calibrate", static_cast<std::uint64_t>(n_layer), "layers");
  NARROW_ASSIGN(calib::Stream x, calib::embed(source, windows));
  for (std::int64_t layer = 0; layer < n_layer; ++layer) {
    Sampler seen(windows.size());
    NARROW_TRY(calib::run_layer(source, layer, windows, x, &x, &seen, progress));
    const std::string prefix = fmt::format("blk.{}.", layer);
    std::vector<std::size_t> mine;
    for (const std::size_t i : tensors) {
      if (source->tensors()[i].name.starts_with(prefix)) mine.push_back(i);
    }
    NARROW_TRY(chooser.choose(mine, seen));
    for (const std::size_t i : mine) source->drop(i);
    progress.update(static_cast<std::uint64_t>(layer + 1), prefix);
  }
  Sampler head(windows.size());
  NARROW_TRY(calib::head_input(*source, x.all(), x.all()));
  NARROW_TRY(head.take(n_layer, Tap::kHead, -1, x.all()));
  std::vector<std::size_t> last;
  for (const std::size_t i : tensors) {
    if (!source->tensors()[i].name.starts_with("blk.")) last.push_back(i);
  }
  NARROW_TRY(chooser.choose(last, head));
  progress.end();
  return chooser.take();
}

calib::TokenWindows random_windows(const model::ModelSource& source, std::uint64_t seed) {
  calib::TokenWindows windows;
  Rng rng(seed);
  const model::ModelConfig& c = source.config();
  const std::int64_t length = std::min(calib::kMaxWindow, c.n_ctx_train);
  const auto vocab = static_cast<std::uint64_t>(c.n_vocab);
  const std::optional<std::int64_t> bos = source.token_ids().bos;
  for (std::int64_t w = 0; w < kRandomWindows; ++w) {
    for (std::int64_t i = 0; i < length; ++i) {
      windows.tokens.push_back(static_cast<std::int32_t>(rng.next_u64() % vocab));
      if (i == 0 && bos && *bos < c.n_vocab) windows.tokens.back() = static_cast<std::int32_t>(*bos);
    }
    windows.lengths.push_back(length);
  }
  return windows;
}

}  // namespace narrow::pipeline

#include "pipeline/transform.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/fold.h"
#include "model/rotate.h"
#include "model/transformed.h"
#include "quant/awq.h"

namespace narrow::pipeline {
namespace {

using model::FoldGroup;
using model::FoldKind;
using model::FoldPart;
using model::TransformedSource;

constexpr std::array kTransforms = {
    TransformInfo{"rotate", "before another: turns heads and, where it may, the residual stream", false},
    TransformInfo{"awq", "before another: scales of input channels, by output error", true},
    TransformInfo{"smoothquant", "before another: evens out inputs and weights, for int8 inputs", true},
    TransformInfo{"equalize", "before another: evens out inputs, for int8 inputs with static scales", true},
};

// Rows of a matrix that stand for all of them when scales are searched.
constexpr std::int64_t kLeastSample = 16, kMostSample = 128, kSampleShare = 16;
// Of a scale of SmoothPass, and its inverse.
constexpr float kMostSmooth = 1e4f;
// A gain smaller than this is within what another sample of rows would say.
constexpr double kLeastGain = 0.005;

Status rotate(const TransformOptions& options, TransformedSource& out, ProgressSink& progress) {
  NARROW_ASSIGN(const std::string refusal, model::residual_refusal(out));
  NARROW_TRY(model::rotate_heads(options.seed, out));
  progress.note("rotate: every head of the values, and of attention's output");
  if (options.moments != nullptr) {
    // Within the feed-forward layer nothing is turned.
    std::erase_if(*options.moments, [&](const auto& entry) {
      const bool of_stream = entry.first.find("ffn_down") == std::string::npos;
      return entry.first.ends_with("attn_output.weight") || (of_stream && refusal.empty());
    });
  }
  if (!refusal.empty()) {
    progress.note("rotate: the residual stream is left as it is: " + refusal);
    return {};
  }
  NARROW_TRY(model::rotate_residual(options.seed, out));
  progress.note("rotate: the residual stream, with the gains of its norms in the matrices behind them");
  return {};
}

// The rows of a matrix that share one input: all of them, or an expert's.
struct Stretch {
  std::int64_t begin = 0, rows = 0;
  std::size_t entry = 0;  // of the statistics
};

std::vector<Stretch> stretches(const FoldPart& part, std::int64_t tensor_rows, std::size_t entries) {
  const std::int64_t each = tensor_rows / static_cast<std::int64_t>(entries);
  std::vector<Stretch> out;
  for (std::size_t e = 0; e < entries; ++e) {
    const std::int64_t begin = static_cast<std::int64_t>(e) * each;
    if (begin >= part.row_begin && begin + each <= part.row_end) out.push_back({begin, each, e});
  }
  return out;
}

// Scales for every place of a model that can take them.
class ScalePass {
 public:
  ScalePass(std::string_view name, const model::ModelSource& source, const calib::ModelStats& stats,
            const TransformOptions& options)
      : source_(source), stats_(stats), options_(options), name_(name) {}
  virtual ~ScalePass() = default;

  Status run(TransformedSource& out, ProgressSink& progress) {
    NARROW_ASSIGN(const model::FoldPlan plan, model::find_folds(source_));
    std::vector<const FoldGroup*> groups;
    for (const FoldGroup& g : plan.groups) {
      if (g.kind != FoldKind::kKeyQuery) groups.push_back(&g);
    }
    progress.begin(name_, groups.size(), "places");
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      NARROW_TRY(scale_group(*groups[i], out));
      progress.update(i + 1, groups[i]->name);
    }
    progress.end();
    progress.note(fmt::format("{}: {}", name_, summary()));
    if (!unknown_.empty()) {
      progress.note(
          fmt::format("{}: no statistics for '{}'{}, which keep their scales", name_, unknown_.front(),
                      unknown_.size() > 1 ? fmt::format(" and {} others", unknown_.size() - 1) : ""));
    }
    for (const model::FoldRefusal& r : plan.refused) {
      if (r.kind != FoldKind::kKeyQuery) progress.note(fmt::format("{}: {}", name_, r.reason));
    }
    return {};
  }

 protected:
  virtual Status scale_group(const FoldGroup& g, TransformedSource& out) = 0;
  virtual std::string summary() const = 0;

  // A consumer's statistics; null, and noted, where there are none.
  Result<const std::vector<calib::InputStats>*> statistics(const FoldPart& part) {
    const TensorInfo& t = source_.tensors()[part.tensor];
    const auto it = stats_.inputs.find(t.name);
    if (it == stats_.inputs.end() || it->second.empty()) {
      unknown_.push_back(t.name);
      return static_cast<const std::vector<calib::InputStats>*>(nullptr);
    }
    for (const calib::InputStats& in : it->second) {
      if (in.k == t.shape.row_length()) continue;
      return make_error(ErrorCode::kInvalidArgument, "{}: '{}' has {} inputs, its statistics {}",
                        source_.path().string(), t.name, t.shape.row_length(), in.k);
    }
    return &it->second;
  }

  // Folds the scales in, and follows them in the moments of what they make smaller.
  Status apply(const FoldGroup& g, std::span<const float> scale, TransformedSource& out) {
    NARROW_TRY(apply_fold(g, scale, out));
    ++scaled_;
    if (options_.moments == nullptr) return {};
    for (const FoldPart& part : g.consumers) {
      const TensorInfo& t = source_.tensors()[part.tensor];
      const auto it = options_.moments->find(t.name);
      if (it == options_.moments->end() || it->second.empty()) continue;
      for (const Stretch& s : stretches(part, t.shape.rows(), it->second.size())) {
        calib::Moments& m = it->second[s.entry];
        for (std::size_t j = 0; j < part.channel.size(); ++j) {
          const float f = 1.0f / scale[static_cast<std::size_t>(part.channel[j])];
          if (!m.mean_square.empty()) m.mean_square[j] *= f * f;
          if (!m.mean.empty()) m.mean[j] *= f;
          if (!m.abs_max.empty()) m.abs_max[j] *= f;
        }
      }
    }
    return {};
  }

  const model::ModelSource& source_;
  const calib::ModelStats& stats_;
  const TransformOptions& options_;
  std::size_t scaled_ = 0;
  std::vector<std::string> unknown_;

 private:
  std::string_view name_;
};

// For products whose inputs are quantized too: s = max |x|^a / max |w|^b of every channel.
// "smoothquant" (Xiao et al. 2023, https://arxiv.org/abs/2211.10438), a = b = 1/2: the greatest inputs and
// weights meet halfway.
// "equalize", a = 3/4, b = 0, for one scale for all tokens: there rounding of inputs is tens of times the
// noise of int8 weights, and is least where all channels reach equally far (a = 1); the rest leaves the
// smaller channels room for what calibration did not see. a = 1/2 for weights of fewer bits, whose noise the
// scales raise.
class SmoothPass final : public ScalePass {
 public:
  struct Powers {
    float inputs, weights;
  };
  static constexpr Powers kSmoothQuant = {0.5f, 0.5f}, kEqualize = {0.75f, 0.0f},
                          kEqualizeFewBits = {0.5f, 0.0f};

  SmoothPass(std::string_view name, const Powers& powers, const model::ModelSource& source,
             const calib::ModelStats& stats, const TransformOptions& options)
      : ScalePass(name, source, stats, options), powers_(powers) {}

 private:
  std::string summary() const override { return fmt::format("scales in {} places", scaled_); }

  static void raise(std::vector<float>& to, const std::vector<float>& by) {
    to.resize(by.size(), 0.0f);
    for (std::size_t i = 0; i < by.size(); ++i) to[i] = std::max(to[i], by[i]);
  }

  // The greatest magnitude of every column of the part's rows.
  Result<std::vector<float>> column_maxima(const FoldPart& part) const {
    const std::int64_t k = source_.tensors()[part.tensor].shape.row_length();
    std::vector<float> rows(static_cast<std::size_t>(kMostSample * k)),
        out(static_cast<std::size_t>(k), 0.0f);
    for (std::int64_t r = part.row_begin; r < part.row_end; r += kMostSample) {
      const std::int64_t n = std::min(kMostSample, part.row_end - r);
      NARROW_TRY(source_.read_f32(part.tensor, r, r + n, rows.data()));
      for (std::int64_t i = 0; i < n * k; ++i) {
        float& m = out[static_cast<std::size_t>(i % k)];
        m = std::max(m, std::fabs(rows[static_cast<std::size_t>(i)]));
      }
    }
    return out;
  }

  Status scale_group(const FoldGroup& g, TransformedSource& out) override {
    std::vector<float> inputs, weights;
    for (const FoldPart& part : g.consumers) {
      if (!model::is_quantizable(source_.tensors()[part.tensor])) continue;
      NARROW_ASSIGN(const auto* stats, statistics(part));
      if (stats == nullptr) continue;
      const std::vector<calib::Moments> moments = calib::moments(*stats);
      const std::int64_t rows = source_.tensors()[part.tensor].shape.rows();
      for (const Stretch& s : stretches(part, rows, moments.size())) {
        raise(inputs, model::channel_max(part, g.channels, moments[s.entry].abs_max));
      }
      NARROW_ASSIGN(const std::vector<float> columns, column_maxima(part));
      raise(weights, model::channel_max(part, g.channels, columns));
    }
    if (inputs.empty() || inputs.size() != weights.size()) return {};
    std::vector<float> scale;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const bool known = inputs[i] > 0 && weights[i] > 0;
      const float s =
          known ? std::pow(inputs[i], powers_.inputs) / std::pow(weights[i], powers_.weights) : 1.0f;
      scale.push_back(std::clamp(s, 1.0f / kMostSmooth, kMostSmooth));
    }
    return apply(g, scale, out);
  }

  Powers powers_;
};

class AwqPass final : public ScalePass {
 public:
  AwqPass(const model::ModelSource& source, const calib::ModelStats& stats, const TransformOptions& options)
      : ScalePass("awq", source, stats, options) {}

 private:
  std::string summary() const override {
    return fmt::format(
        "scales in {} of {} places; output error of rounding to nearest there {:.4g} of what it was", scaled_,
        searched_, plain_error_ > 0 ? error_ / plain_error_ : 1.0);
  }

  bool quantized(std::size_t tensor) const {
    const FormatInfo& info = format_info(options_.types[tensor]);
    const TensorInfo& t = source_.tensors()[tensor];
    return info.kind == FormatKind::kQuantized && info.can_encode() && model::is_quantizable(t) &&
           t.shape.row_length() % info.block_size == 0;
  }

  // Rows spread evenly over a stretch.
  Status sample(const FoldPart& part, const Stretch& s, quant::AwqMatrix& m) const {
    const std::int64_t k = source_.tensors()[part.tensor].shape.row_length();
    m.n = std::clamp(s.rows / kSampleShare, std::min(kLeastSample, s.rows), kMostSample);
    m.w.resize(static_cast<std::size_t>(m.n * k));
    for (std::int64_t i = 0; i < m.n; ++i) {
      const std::int64_t row = s.begin + i * s.rows / m.n;
      NARROW_TRY(source_.read_f32(part.tensor, row, row + 1, m.w.data() + i * k));
    }
    return {};
  }

  Status scale_group(const FoldGroup& g, TransformedSource& out) override {
    quant::AwqProblem p;
    p.channels = g.channels;
    p.search = options_.search;
    std::vector<double> sum;  // of squares, by input
    double rows = 0;
    const FoldPart* any = nullptr;
    for (const FoldPart& part : g.consumers) {
      if (!quantized(part.tensor)) continue;
      const TensorInfo& t = source_.tensors()[part.tensor];
      NARROW_ASSIGN(const auto* stats, statistics(part));
      if (stats == nullptr) continue;
      p.k = t.shape.row_length();
      p.channel = part.channel;
      any = &part;
      sum.resize(static_cast<std::size_t>(p.k), 0.0);
      const std::vector<calib::Moments> moments = calib::moments(*stats);
      for (const Stretch& s : stretches(part, t.shape.rows(), stats->size())) {
        const calib::InputStats& in = (*stats)[s.entry];
        if (in.rows == 0) continue;
        quant::AwqMatrix m;
        m.format = options_.types[part.tensor];
        m.mean_square = moments[s.entry].mean_square;
        m.hessian = in.gram.span();
        NARROW_TRY(sample(part, s, m));
        m.weight = static_cast<double>(s.rows) / static_cast<double>(m.n);
        if (m.hessian.empty()) m.weight *= static_cast<double>(in.rows);  // sums already count them
        p.matrices.push_back(std::move(m));
        for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += in.sum_square[j];
        rows += static_cast<double>(in.rows);
      }
    }
    if (p.matrices.empty()) return {};
    std::vector<float> mean_square;
    for (const double s : sum) mean_square.push_back(static_cast<float>(s / rows));
    p.mean_square = model::channel_mean(*any, p.channels, mean_square);
    NARROW_ASSIGN(const quant::AwqScales found, quant::search_awq(p));
    ++searched_;
    plain_error_ += found.plain_error;
    if (!(found.error < (1.0 - kLeastGain) * found.plain_error)) {
      error_ += found.plain_error;
      return {};
    }
    error_ += found.error;
    return apply(g, found.scale, out);
  }

  std::size_t searched_ = 0;
  double error_ = 0, plain_error_ = 0;
};

Status check(std::span<const std::string> names, const calib::ModelStats* stats) {
  bool rotates = false;
  for (const std::string& name : names) {
    if (!is_transform(name)) {
      return make_error(ErrorCode::kInvalidArgument, "method: there is no transform '{}'; known are {}", name,
                        fmt::join(transform_names(), ", "));
    }
    if (!needs_statistics(name)) {
      rotates = true;
    } else if (stats == nullptr) {
      return make_error(ErrorCode::kInvalidArgument,
                        "method '{}' needs calibration: name texts or statistics", name);
    } else if (rotates) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "method '{}': its statistics must be of the rotated model: rotate, calibrate, then scale", name);
    }
  }
  return {};
}

}  // namespace

std::span<const TransformInfo> all_transforms() { return kTransforms; }

std::vector<std::string_view> transform_names() {
  std::vector<std::string_view> names;
  for (const TransformInfo& t : kTransforms) names.push_back(t.name);
  return names;
}

const TransformInfo* find_transform(std::string_view name) {
  for (const TransformInfo& t : kTransforms) {
    if (t.name == name) return &t;
  }
  return nullptr;
}

bool is_transform(std::string_view name) { return find_transform(name) != nullptr; }

bool needs_statistics(std::string_view transform) {
  const TransformInfo* t = find_transform(transform);
  return t != nullptr && t->needs_statistics;
}

Result<std::shared_ptr<const model::ModelSource>> transform(std::shared_ptr<const model::ModelSource> source,
                                                            std::span<const std::string> names,
                                                            const calib::ModelStats* stats,
                                                            const TransformOptions& options,
                                                            ProgressSink& progress) {
  NARROW_TRY(check(names, stats));
  if (names.empty()) return source;
  if (options.types.size() != source->tensors().size()) {
    return make_error(ErrorCode::kInternal, "{}: {} types for {} tensors", source->path().string(),
                      options.types.size(), source->tensors().size());
  }
  const auto out = std::make_shared<TransformedSource>(source);
  for (const std::string& name : names) {
    if (name == "rotate") {
      NARROW_TRY(rotate(options, *out, progress));
    } else if (name == "awq") {
      NARROW_TRY(AwqPass(*source, *stats, options).run(*out, progress));
    } else {
      const bool int8 =
          std::find(options.types.begin(), options.types.end(), Format::kI8) != options.types.end();
      const auto powers = name != "equalize" ? SmoothPass::kSmoothQuant
                          : int8             ? SmoothPass::kEqualize
                                             : SmoothPass::kEqualizeFewBits;
      NARROW_TRY(SmoothPass(name, powers, *source, *stats, options).run(*out, progress));
    }
  }
  return std::shared_ptr<const model::ModelSource>(out);
}

}  // namespace narrow::pipeline

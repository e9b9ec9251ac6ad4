#include "pipeline/transform.h"

#include <algorithm>
#include <array>

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

constexpr std::array<std::string_view, 3> kNames = {"rotate", "awq", "smoothquant"};

// Rows of a matrix that stand for all of them when scales are searched.
constexpr std::int64_t kLeastSample = 32, kMostSample = 256, kSampleShare = 4;
// A gain smaller than this is within what another sample of rows would say.
constexpr double kLeastGain = 0.005;

Status rotate(const TransformOptions& options, TransformedSource& out, ProgressSink& progress) {
  NARROW_ASSIGN(const std::string refusal, model::residual_refusal(out));
  NARROW_TRY(model::rotate_heads(options.seed, out));
  progress.note("rotate: every head of the values, and of attention's output");
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

class AwqPass {
 public:
  AwqPass(const model::ModelSource& source, const calib::ModelStats& stats, const TransformOptions& options)
      : source_(source), stats_(stats), options_(options) {}

  Status run(TransformedSource& out, ProgressSink& progress) {
    NARROW_ASSIGN(const model::FoldPlan plan, model::find_folds(source_));
    std::vector<const FoldGroup*> groups;
    for (const FoldGroup& g : plan.groups) {
      if (g.kind != FoldKind::kKeyQuery) groups.push_back(&g);
    }
    progress.begin("awq", groups.size(), "places");
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      NARROW_TRY(scale_group(*groups[i], out));
      progress.update(i + 1, groups[i]->name);
    }
    progress.end();
    progress.note(fmt::format(
        "awq: scales in {} of {} places; output error of rounding to nearest there {:.4g} of what it was",
        scaled_, searched_, plain_error_ > 0 ? error_ / plain_error_ : 1.0));
    if (!unknown_.empty()) {
      progress.note(
          fmt::format("awq: no statistics for '{}'{}, which keep their scales", unknown_.front(),
                      unknown_.size() > 1 ? fmt::format(" and {} others", unknown_.size() - 1) : ""));
    }
    for (const model::FoldRefusal& r : plan.refused) {
      if (r.kind != FoldKind::kKeyQuery) progress.note("awq: " + r.reason);
    }
    return {};
  }

 private:
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

  Status scale_group(const FoldGroup& g, TransformedSource& out) {
    quant::AwqProblem p;
    p.channels = g.channels;
    p.search = options_.search;
    std::vector<double> sum;  // of squares, by input
    double rows = 0;
    const FoldPart* any = nullptr;
    for (const FoldPart& part : g.consumers) {
      if (!quantized(part.tensor)) continue;
      const TensorInfo& t = source_.tensors()[part.tensor];
      const auto it = stats_.inputs.find(t.name);
      if (it == stats_.inputs.end() || it->second.empty()) {
        unknown_.push_back(t.name);
        continue;
      }
      p.k = t.shape.row_length();
      p.channel = part.channel;
      any = &part;
      sum.resize(static_cast<std::size_t>(p.k), 0.0);
      const std::vector<calib::Moments> moments = calib::moments(it->second);
      for (const Stretch& s : stretches(part, t.shape.rows(), it->second.size())) {
        const calib::InputStats& in = it->second[s.entry];
        if (in.k != p.k) {
          return make_error(ErrorCode::kInvalidArgument, "{}: '{}' has {} inputs, its statistics {}",
                            source_.path().string(), t.name, p.k, in.k);
        }
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
    ++scaled_;
    error_ += found.error;
    return apply_fold(g, found.scale, out);
  }

  const model::ModelSource& source_;
  const calib::ModelStats& stats_;
  const TransformOptions& options_;
  std::size_t scaled_ = 0, searched_ = 0;
  double error_ = 0, plain_error_ = 0;
  std::vector<std::string> unknown_;
};

Status check(std::span<const std::string> names, const calib::ModelStats* stats) {
  bool rotates = false;
  for (const std::string& name : names) {
    if (!is_transform(name)) {
      return make_error(ErrorCode::kInvalidArgument, "method: there is no transform '{}'; known are {}", name,
                        fmt::join(kNames, ", "));
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

bool is_transform(std::string_view name) {
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

bool needs_statistics(std::string_view transform) { return transform != "rotate"; }

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
    } else {
      NARROW_TRY(AwqPass(*source, *stats, options).run(*out, progress));
    }
  }
  return std::shared_ptr<const model::ModelSource>(out);
}

}  // namespace narrow::pipeline

#include "calib/collect.h"

#include <algorithm>

#include "io/printable.h"
#include "ops/rows.h"

namespace narrow::calib {
namespace {

using model::ModelSource;
using runtime::Tap;

bool per_expert(Tap tap) { return tap == Tap::kExpert || tap == Tap::kExpertDown; }

std::string layer_prefix(std::int64_t layer) { return fmt::format("blk.{}.", layer); }

// How many matrices of how many inputs a tensor holds.
struct Inputs {
  std::int64_t matrices = 1, k = 0;
};
Inputs inputs_of(const TensorInfo& t) {
  const bool stacked = t.shape.rank() == 3;
  return {stacked ? t.shape[0] : 1, t.shape.row_length()};
}

// The statistics of the tensors at `indices`, which saw what the observer did.
void store(const ModelSource& source, const std::vector<std::size_t>& indices, const LayerObserver& seen,
           ModelStats& out) {
  for (const std::size_t i : indices) {
    const TensorInfo& t = source.tensors()[i];
    const std::vector<InputStats>& from = seen.at(runtime::tap_of(t.name));
    std::vector<InputStats>& to = out.inputs[t.name];
    for (const InputStats& s : from) {
      to.push_back(s.k > 0 ? s.copy() : InputStats::of_width(inputs_of(t).k));
    }
  }
}

// Says which matrices have no statistics.
void note_missing(const ModelStats& stats, const ModelSource& source, const std::string& name,
                  ProgressSink& progress) {
  std::vector<std::string> missing;
  const std::vector<std::size_t> all = calibrated_tensors(source);
  for (const std::size_t i : all) {
    if (!stats.inputs.contains(source.tensors()[i].name)) missing.push_back(source.tensors()[i].name);
  }
  if (missing.empty()) return;
  std::string named;
  for (std::size_t i = 0; i < std::min(missing.size(), kNamed); ++i) {
    named += (i > 0 ? ", " : "") + missing[i];
  }
  if (missing.size() > kNamed) named += fmt::format(" and {} more", missing.size() - kNamed);
  progress.note(fmt::format("{}: no statistics for {} of {} matrices, which are quantized without: {}", name,
                            missing.size(), all.size(), named));
}

}  // namespace

LayerObserver::LayerObserver(const model::ModelConfig& config, bool with_gram) : with_gram_(with_gram) {
  for (std::size_t i = 0; i < taps_.size(); ++i) {
    taps_[i].resize(per_expert(static_cast<Tap>(i)) ? static_cast<std::size_t>(config.n_expert) : 1);
  }
}

Status LayerObserver::take(std::int64_t, Tap tap, std::int64_t expert, ops::ConstMatrix x) {
  std::vector<InputStats>& stats = taps_[static_cast<std::size_t>(tap)];
  return stats[per_expert(tap) ? static_cast<std::size_t>(expert) : 0].add(x, with_gram_);
}

std::vector<std::size_t> calibrated_tensors(const ModelSource& source) {
  const std::string_view head = source.find("output.weight") ? "output.weight" : "token_embd.weight";
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& t = source.tensors()[i];
    if (model::is_quantizable(t) && (t.name.starts_with("blk.") || t.name == head)) out.push_back(i);
  }
  return out;
}

Status head_input(const ModelSource& source, ops::ConstMatrix x, ops::Matrix out) {
  const auto vector_of = [&](std::string_view name, std::vector<float>& values) -> Status {
    const auto i = source.find(name);
    if (!i) return {};
    const TensorInfo& t = source.tensors()[*i];
    if (t.shape.elements() != x.cols) {
      return make_error(ErrorCode::kCorrupt, "{}: '{}' has {} values for {} inputs", source.path().string(),
                        name, t.shape.elements(), x.cols);
    }
    values.resize(static_cast<std::size_t>(x.cols));
    return source.read_f32(*i, 0, t.shape.rows(), values.data());
  };
  std::vector<float> gain, bias;
  NARROW_TRY(vector_of("output_norm.weight", gain));
  NARROW_TRY(vector_of("output_norm.bias", bias));
  if (gain.empty()) {
    return make_error(ErrorCode::kNotFound, "{}: 'output_norm.weight' is missing", source.path().string());
  }
  const float eps = source.config().norm_eps;
  if (source.config().norm == model::NormKind::kLayer) {
    ops::layer_norm(x, gain.data(), bias.empty() ? nullptr : bias.data(), eps, out);
  } else {
    ops::rms_norm(x, gain.data(), eps, x.cols, out);
  }
  return {};
}

Result<ModelStats> collect(const std::shared_ptr<const ModelSource>& source, const TokenWindows& windows,
                           ProgressSink& progress) {
  const model::ModelConfig& config = source->config();
  const std::vector<std::size_t> tensors = calibrated_tensors(*source);
  ModelStats stats;
  for (const std::int64_t n : windows.lengths) stats.chunk_tokens = std::max(stats.chunk_tokens, n);
  stats.chunks = static_cast<std::int64_t>(windows.lengths.size());

  // A token counts as done by the share of the layers that it has passed.
  progress.begin("calibrate", static_cast<std::uint64_t>(windows.size()), "tokens");
  NARROW_ASSIGN(Stream x, embed(source, windows));
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    LayerObserver seen(config);
    NARROW_ASSIGN(LayerRun run, LayerRun::create(source, layer, windows));
    const std::string prefix = layer_prefix(layer);
    for (const WalkStep& step : run.steps()) {
      if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      NARROW_TRY(run.run(step, x.rows(step.begin, step.tokens), &seen));
      const std::int64_t done = layer * windows.size() + step.begin + step.tokens;
      progress.update(static_cast<std::uint64_t>(done / config.n_layer), prefix);
    }
    std::vector<std::size_t> mine;
    for (const std::size_t i : tensors) {
      if (source->tensors()[i].name.starts_with(prefix)) mine.push_back(i);
    }
    store(*source, mine, seen, stats);
    for (std::size_t i = 0; i < source->tensors().size(); ++i) {
      if (source->tensors()[i].name.starts_with(prefix)) source->drop(i);
    }
  }
  LayerObserver head(config);
  NARROW_TRY(head_input(*source, x.all(), x.all()));
  NARROW_TRY(head.take(config.n_layer, Tap::kHead, -1, x.all()));
  std::vector<std::size_t> last;
  for (const std::size_t i : tensors) {
    if (!source->tensors()[i].name.starts_with("blk.")) last.push_back(i);
  }
  store(*source, last, head, stats);
  progress.end();

  const bool any = std::any_of(stats.inputs.begin(), stats.inputs.end(), [](const auto& item) {
    return std::any_of(item.second.begin(), item.second.end(),
                       [](const InputStats& s) { return s.rows > 0; });
  });
  if (!any) {
    return make_error(ErrorCode::kNumeric,
                      "{}: every activation is NaN or infinite: the model's weights are damaged",
                      source->path().string());
  }
  for (const std::string& line : findings(stats)) progress.note(line);
  return stats;
}

Status check_stats(ModelStats& stats, const ModelSource& source, const std::string& name,
                   ProgressSink& progress) {
  const std::string model = source.path().string();
  std::vector<std::string> unknown;
  std::size_t known = 0;
  for (auto& [tensor, entries] : stats.inputs) {
    const auto i = source.find(tensor);
    if (!i) {
      unknown.push_back(io::printable(tensor));
      continue;
    }
    ++known;
    const Inputs want = inputs_of(source.tensors()[*i]);
    if (!split_experts(entries, want.matrices)) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "{}: '{}' has statistics of {} experts, the model {} has {}: they are of another model", name,
          tensor, entries.size(), model, want.matrices);
    }
    for (const InputStats& s : entries) {
      if (s.k == want.k) continue;
      return make_error(
          ErrorCode::kInvalidArgument,
          "{}: '{}' has statistics of {} inputs, in the model {} it has {}: they are of another "
          "model",
          name, tensor, s.k, model, want.k);
    }
  }
  if (known == 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: none of its {} matrices ('{}') is in the model {}: the statistics are of another "
                      "model",
                      name, stats.inputs.size(), unknown.empty() ? "" : unknown.front(), model);
  }
  const std::string beyond = layer_prefix(source.config().n_layer);
  for (const std::string& tensor : unknown) {
    if (!tensor.starts_with(beyond)) continue;
    return make_error(
        ErrorCode::kInvalidArgument,
        "{}: '{}' is in a layer that the model {} does not have (it has {}): the statistics are "
        "of another model",
        name, tensor, model, source.config().n_layer);
  }
  if (!unknown.empty()) {
    progress.note(fmt::format("{}: {} of its matrices are not in the model and are left out, e.g. {}", name,
                              unknown.size(), unknown.front()));
    std::erase_if(stats.inputs, [&](const auto& item) { return !source.find(item.first); });
  }
  note_missing(stats, source, name, progress);
  for (const std::string& line : findings(stats)) progress.note(fmt::format("{}: {}", name, line));
  return {};
}

}  // namespace narrow::calib

#include "calib/walk.h"

#include <algorithm>

#include "runtime/decoder.h"

namespace narrow::calib {
namespace {

using runtime::Decoder;

std::vector<WalkStep> steps_of(const TokenWindows& windows) {
  std::vector<WalkStep> out;
  std::int64_t at = 0;
  for (std::size_t i = 0; i < windows.lengths.size(); ++i) {
    if (out.empty() || out.back().tokens + windows.lengths[i] > runtime::kChunk) {
      out.push_back({i, 0, at, 0});
    }
    ++out.back().count;
    out.back().tokens += windows.lengths[i];
    at += windows.lengths[i];
  }
  return out;
}

struct Graph {
  std::unique_ptr<Decoder> decoder;  // outlives its sequences
  std::vector<runtime::KvSequence> sequences;
};

Result<Graph> open_part(const std::shared_ptr<const model::ModelSource>& source, runtime::Part part,
                        std::int64_t layer, const std::vector<WalkStep>& steps, runtime::Compute compute) {
  runtime::LoadOptions load;
  load.compute = compute;
  load.part = part;
  load.layer = layer;
  NARROW_ASSIGN(auto model, runtime::LoadedModel::load(source, load));
  std::size_t most = 1;
  for (const WalkStep& p : steps) most = std::max(most, p.count);
  runtime::SessionOptions options;
  options.cache_keys = options.cache_values = Format::kF32;
  Graph g;
  NARROW_ASSIGN(g.decoder,
                Decoder::create(std::move(model), static_cast<int>(most), runtime::kChunk, options));
  for (std::size_t i = 0; i < most; ++i) g.sequences.emplace_back(g.decoder->pool());
  return g;
}

}  // namespace

Stream Stream::copy() const {
  Stream s(rows_, width_);
  std::copy_n(x_.data(), x_.size(), s.x_.data());
  return s;
}

Result<Stream> embed(const std::shared_ptr<const model::ModelSource>& source, const TokenWindows& windows) {
  const std::vector<WalkStep> steps = steps_of(windows);
  NARROW_ASSIGN(Graph g, open_part(source, runtime::Part::kEnds, 0, steps, runtime::Compute::kFloat));
  Stream out(windows.size(), source->config().n_embd);
  for (const WalkStep& p : steps) {
    std::vector<runtime::Run> runs;
    std::int64_t at = p.begin;
    for (std::size_t i = 0; i < p.count; ++i) {
      const std::int64_t n = windows.lengths[p.first + i];
      runs.push_back(
          {&g.sequences[i],
           std::span(windows.tokens).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n))});
      at += n;
    }
    NARROW_TRY(g.decoder->embed_rows(runs, out.rows(p.begin, p.tokens)));
  }
  return out;
}

struct LayerRun::Impl {
  const TokenWindows& windows;
  std::vector<WalkStep> steps;
  Graph graph;
};

LayerRun::LayerRun(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LayerRun::LayerRun(LayerRun&&) noexcept = default;
LayerRun& LayerRun::operator=(LayerRun&&) noexcept = default;
LayerRun::~LayerRun() = default;

Result<LayerRun> LayerRun::create(const std::shared_ptr<const model::ModelSource>& source, std::int64_t layer,
                                  const TokenWindows& windows, runtime::Compute compute) {
  std::vector<WalkStep> steps = steps_of(windows);
  NARROW_ASSIGN(Graph graph, open_part(source, runtime::Part::kLayer, layer, steps, compute));
  return LayerRun(std::unique_ptr<Impl>(new Impl{windows, std::move(steps), std::move(graph)}));
}

const std::vector<WalkStep>& LayerRun::steps() const { return impl_->steps; }

Status LayerRun::run(const WalkStep& step, ops::Matrix x, runtime::TapSink* taps, runtime::Half half) {
  std::vector<Decoder::Rows> runs;
  for (std::size_t i = 0; i < step.count; ++i) {
    NARROW_TRY(impl_->graph.sequences[i].truncate(0));
    runs.push_back({&impl_->graph.sequences[i], impl_->windows.lengths[step.first + i]});
  }
  impl_->graph.decoder->set_taps(taps);
  impl_->graph.decoder->set_half(half);
  return impl_->graph.decoder->run_rows(runs, x);
}

Status run_layer(const std::shared_ptr<const model::ModelSource>& source, std::int64_t layer,
                 const TokenWindows& windows, Stream& in, Stream* out, runtime::TapSink* taps,
                 ProgressSink& progress, const WalkOptions& options) {
  NARROW_ASSIGN(LayerRun layer_run, LayerRun::create(source, layer, windows, options.compute));
  AlignedBuffer<float> scratch;
  for (std::size_t i = 0; i < layer_run.steps().size(); i += options.every) {
    const WalkStep& p = layer_run.steps()[i];
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const ops::Matrix from = in.rows(p.begin, p.tokens);
    ops::Matrix x;
    if (out != nullptr) {
      x = out->rows(p.begin, p.tokens);
    } else {
      scratch.reserve_at_least(static_cast<std::size_t>(p.tokens * in.width()));
      x = ops::Matrix(scratch.data(), p.tokens, in.width());
    }
    if (x.data != from.data) std::copy_n(from.data, from.rows * from.cols, x.data);
    NARROW_TRY(layer_run.run(p, x, taps, options.half));
  }
  return {};
}

}  // namespace narrow::calib

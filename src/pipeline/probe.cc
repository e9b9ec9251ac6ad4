#include "pipeline/probe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/rng.h"
#include "base/thread_team.h"
#include "calib/collect.h"
#include "ops/matmul.h"
#include "ops/rows.h"
#include "runtime/decoder.h"

namespace narrow::pipeline {
namespace {

using model::ModelSource;
using runtime::Decoder;

using SourcePtr = std::shared_ptr<const ModelSource>;

constexpr std::int64_t kLogitBytes = 64 << 20;  // of all logits at a time

std::int64_t logit_rows(std::int64_t n_vocab) {
  return std::clamp<std::int64_t>(kLogitBytes / 4 / n_vocab, 1, runtime::kChunk);
}

// Embedding, final norm and head of a model in fp32.
class Ends {
 public:
  static Result<Ends> open(const SourcePtr& source) {
    runtime::LoadOptions load;
    load.compute = runtime::Compute::kFloat;
    load.part = runtime::Part::kEnds;
    NARROW_ASSIGN(auto model, runtime::LoadedModel::load(source, load));
    runtime::SessionOptions options;
    options.cache_keys = options.cache_values = Format::kF32;
    Ends e;
    NARROW_ASSIGN(e.decoder_, Decoder::create(std::move(model), 1, runtime::kChunk, options));
    e.sequence_.emplace(e.decoder_->pool());
    return e;
  }

  // x [at most kChunk, n_embd] after the last layer -> out [x.rows, n_vocab].
  Status logits(ops::Matrix x, float* out) {
    NARROW_TRY(sequence_->truncate(0));
    const Decoder::Rows run{&*sequence_, x.rows};
    NARROW_TRY(decoder_->run_rows({&run, 1}, x));
    std::vector<std::int64_t> rows(static_cast<std::size_t>(x.rows));
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    return decoder_->logits(rows, out);
  }

 private:
  std::unique_ptr<Decoder> decoder_;
  std::optional<runtime::KvSequence> sequence_;
};

// Rows of all windows' tokens whose next token is predicted from at least `skip(n)` tokens before it.
template <class Skip>
std::vector<std::int64_t> scored_rows(const calib::TokenWindows& windows, Skip skip) {
  std::vector<std::int64_t> rows;
  std::int64_t begin = 0;
  for (const std::int64_t n : windows.lengths) {
    for (std::int64_t r = skip(n); r < n; ++r) rows.push_back(begin + r);
    begin += n;
  }
  return rows;
}

Status require_finite(double kl, const ModelSource& source) {
  if (std::isfinite(kl)) return {};
  return make_error(ErrorCode::kNumeric, "{}: its logits are not finite: its weights are damaged",
                    source.path().string());
}

}  // namespace

Result<LayerProbe> LayerProbe::create(SourcePtr reference, calib::TokenWindows windows,
                                      ProgressSink& progress) {
  LayerProbe p;
  p.reference_ = std::move(reference);
  p.windows_ = std::move(windows);
  NARROW_ASSIGN(calib::Stream x, calib::embed(p.reference_, p.windows_));
  const std::int64_t n_layer = p.reference_->config().n_layer;
  progress.begin("run the reference", static_cast<std::uint64_t>(n_layer), "layers");
  for (std::int64_t i = 0; i < n_layer; ++i) {
    p.streams_.push_back(x.copy());
    NARROW_TRY(calib::run_layer(p.reference_, i, p.windows_, x, &x, nullptr, progress));
    progress.update(static_cast<std::uint64_t>(i) + 1, "");
  }
  p.streams_.push_back(std::move(x));
  NARROW_TRY(p.sample(progress));
  progress.end();
  return p;
}

Status LayerProbe::sample(ProgressSink& progress) {
  const std::vector<std::int64_t> rows =
      scored_rows(windows_, [](std::int64_t n) { return n > 3 ? n / 4 : n - 1; });
  const std::int64_t n_vocab = reference_->config().n_vocab;
  NARROW_ASSIGN(Ends ends, Ends::open(reference_));
  positions_.resize(rows.size());
  const std::int64_t block = logit_rows(n_vocab);
  std::vector<float> logits(static_cast<std::size_t>(block * n_vocab));
  calib::Stream& last = streams_.back();
  for (std::int64_t begin = 0; begin < last.size(); begin += block) {
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const std::int64_t n = std::min(block, last.size() - begin);
    NARROW_TRY(ends.logits(last.rows(begin, n), logits.data()));
    parallel_for(static_cast<std::int64_t>(rows.size()), [&](std::int64_t i, int) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      if (row < begin || row >= begin + n) return;
      Position& p = positions_[static_cast<std::size_t>(i)];
      p.row = row;
      const float* l = logits.data() + (row - begin) * n_vocab;
      const auto likelier = [&](std::int32_t a, std::int32_t b) {
        return l[a] != l[b] ? l[a] > l[b] : a < b;
      };
      std::vector<std::int32_t> ids(static_cast<std::size_t>(n_vocab));
      std::iota(ids.begin(), ids.end(), 0);
      const auto likely = static_cast<std::size_t>(std::min(kLikely, n_vocab));
      std::nth_element(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(likely - 1), ids.end(),
                       likelier);
      const double top = *std::max_element(l, l + n_vocab);
      const auto mass = [&](std::int32_t id) { return std::exp(static_cast<double>(l[id]) - top); };
      double sum = 0, tail = 0;
      for (std::size_t j = 0; j < ids.size(); ++j) (j < likely ? sum : tail) += mass(ids[j]);
      sum += tail;
      for (std::size_t j = 0; j < likely; ++j) {
        p.ids.push_back(ids[j]);
        p.weights.push_back(static_cast<float>(mass(ids[j]) / sum));
      }
      // Draws at even distances of probability.
      Rng rng(static_cast<std::uint64_t>(row));
      const double step = tail / kSampled;
      double at = rng.next_double() * step, passed = 0;
      for (std::size_t j = likely; j < ids.size() && step > 0; ++j) {
        passed += mass(ids[j]);
        int hits = 0;
        for (; at < passed; at += step) ++hits;
        if (hits == 0) continue;
        p.ids.push_back(ids[j]);
        p.weights.push_back(static_cast<float>(hits * step / sum));
      }
    });
  }
  std::vector<std::vector<float>> exact;
  NARROW_TRY(head_logits(*reference_, last, exact));
  for (std::size_t i = 0; i < positions_.size(); ++i) positions_[i].logits = std::move(exact[i]);
  return {};
}

Status LayerProbe::head_logits(const ModelSource& source, calib::Stream& stream,
                               std::vector<std::vector<float>>& out) const {
  const model::ModelConfig& c = source.config();
  const std::optional<std::size_t> untied = source.find("output.weight");
  const std::size_t head = untied ? *untied : source.find("token_embd.weight").value();
  calib::Stream normed(stream.size(), stream.width());
  NARROW_TRY(calib::head_input(source, stream.all(), normed.all()));
  out.resize(positions_.size());
  std::vector<Status> results(positions_.size());
  parallel_for(static_cast<std::int64_t>(positions_.size()), [&](std::int64_t i, int) {
    const auto index = static_cast<std::size_t>(i);
    const Position& p = positions_[index];
    const auto n = static_cast<std::int64_t>(p.ids.size());
    AlignedBuffer<float> rows(static_cast<std::size_t>(n * c.n_embd));
    const auto work = [&]() -> Status {
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int32_t id = p.ids[static_cast<std::size_t>(j)];
        NARROW_TRY(source.read_f32(head, id, id + 1, rows.data() + j * c.n_embd));
      }
      const TensorView view{Format::kF32, Shape{n, c.n_embd},
                            reinterpret_cast<const std::byte*>(rows.data())};
      out[index].resize(static_cast<std::size_t>(n));
      const ops::Matrix y(out[index].data(), 1, n);
      NARROW_TRY(ops::matmul(ops::Activations(normed.rows(p.row, 1)), ops::Weight(view), y));
      ops::scale_and_cap(y, c.logit_scale, c.final_softcap);
      return {};
    };
    results[index] = work();
  });
  for (const Status& s : results) NARROW_TRY(s);
  return {};
}

Result<double> LayerProbe::measure(const SourcePtr& changed, std::int64_t first, bool embedding,
                                   ProgressSink& progress) {
  calib::Stream x;
  if (embedding) {
    NARROW_ASSIGN(x, calib::embed(changed, windows_));
    first = 0;
  } else {
    x = streams_[static_cast<std::size_t>(first)].copy();
  }
  for (std::int64_t i = first; i < reference_->config().n_layer; ++i) {
    NARROW_TRY(calib::run_layer(changed, i, windows_, x, &x, nullptr, progress));
  }
  std::vector<std::vector<float>> logits;
  NARROW_TRY(head_logits(*changed, x, logits));
  double total = 0;
  for (std::size_t i = 0; i < positions_.size(); ++i) {
    const Position& p = positions_[i];
    double sum = 0, mean = 0, mass = 0;
    for (std::size_t j = 0; j < p.ids.size(); ++j) {
      const double w = p.weights[j], d = static_cast<double>(logits[i][j]) - p.logits[j];
      sum += w * std::exp(d);
      mean += w * d;
      mass += w;
    }
    total += std::log(sum / mass) - mean / mass;
  }
  const double kl = total / static_cast<double>(positions_.size());
  NARROW_TRY(require_finite(kl, *changed));
  return kl;
}

Result<ModelProbe> ModelProbe::create(SourcePtr reference, calib::TokenWindows windows,
                                      ProgressSink& progress) {
  ModelProbe p;
  p.reference_ = std::move(reference);
  p.windows_ = std::move(windows);
  NARROW_ASSIGN(p.last_, calib::embed(p.reference_, p.windows_));
  const std::int64_t n_layer = p.reference_->config().n_layer;
  progress.begin("run the reference", static_cast<std::uint64_t>(n_layer), "layers");
  for (std::int64_t i = 0; i < n_layer; ++i) {
    NARROW_TRY(calib::run_layer(p.reference_, i, p.windows_, p.last_, &p.last_, nullptr, progress));
    progress.update(static_cast<std::uint64_t>(i) + 1, "");
  }
  progress.end();
  return p;
}

Result<eval::MeanAndError> ModelProbe::measure(const SourcePtr& model, ProgressSink& progress) {
  NARROW_ASSIGN(Ends ends, Ends::open(reference_));
  NARROW_ASSIGN(auto loaded, runtime::LoadedModel::load(model));
  runtime::SessionOptions options;
  options.n_ctx = calib::kMaxWindow;
  NARROW_ASSIGN(auto session, runtime::Session::create(std::move(loaded), options));
  const std::int64_t n_vocab = reference_->config().n_vocab, block = logit_rows(n_vocab);
  std::vector<float> exact(static_cast<std::size_t>(block * n_vocab)), logits;
  std::vector<double> kl;
  std::int64_t begin = 0;
  progress.begin("measure", windows_.lengths.size(), "windows");
  for (std::size_t w = 0; w < windows_.lengths.size(); ++w) {
    const std::int64_t n = windows_.lengths[w];
    NARROW_TRY(session->truncate(0));
    for (std::int64_t at = 0; at < n;) {
      if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      const std::int64_t lead = n / 2;
      const bool scored = at >= lead;
      const std::int64_t count = scored ? std::min(block, n - at) : lead - at;
      const auto ids = std::span(windows_.tokens)
                           .subspan(static_cast<std::size_t>(begin + at), static_cast<std::size_t>(count));
      NARROW_TRY(
          session->forward(ids, scored ? runtime::LogitRows::kAll : runtime::LogitRows::kNone, logits));
      if (scored) {
        NARROW_TRY(ends.logits(last_.rows(begin + at, count), exact.data()));
        const std::size_t base = kl.size();
        kl.resize(base + static_cast<std::size_t>(count));
        const auto vocab = static_cast<std::size_t>(n_vocab);
        parallel_for(count, [&](std::int64_t i, int) {
          const auto row = static_cast<std::size_t>(i) * vocab;
          kl[base + static_cast<std::size_t>(i)] =
              eval::score_token({logits.data() + row, vocab}, {exact.data() + row, vocab}, 0).kl;
        });
      }
      at += count;
    }
    begin += n;
    progress.update(w + 1, "");
  }
  progress.end();
  const eval::MeanAndError result = eval::mean_and_error(kl);
  NARROW_TRY(require_finite(result.mean, *model));
  return result;
}

}  // namespace narrow::pipeline

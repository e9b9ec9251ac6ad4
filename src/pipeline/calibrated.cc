#include "pipeline/calibrated.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "base/thread_team.h"
#include "calib/collect.h"
#include "model/overlay.h"
#include "ops/cholesky.h"
#include "ops/gemm.h"
#include "ops/gram.h"
#include "pipeline/moments.h"
#include "pipeline/produce.h"
#include "quant/gain.h"
#include "quant/gptq.h"

namespace narrow::pipeline {
namespace {

using calib::Stream;
using runtime::Half;
using runtime::Tap;

// Tokens whose inputs are matched with the original's are as many at most: a correction that is held this
// small (see below) needs no more, and they cost a pass through the original model.
constexpr std::int64_t kMatchTokens = 4096;
// Every eighth window judges, where the method does.
constexpr std::int64_t kHeldOutEvery = 8;
// A layer is quantized towards the outputs of the original model (in the manner of GPTAQ, Li et al. 2025,
// https://arxiv.org/abs/2504.02692): W + kMatching * W D (H + kMatchDamping diag H)^-1. Without damping
// and at full strength it follows the noise of the layers before and ends far worse than without; measured on
// SmolLM2 in q4_0: KL 0.142 without, 0.126 with damping 1 and strength 0.3, 0.122 with these.
constexpr float kMatching = 0.3f;
constexpr float kMatchDamping = 10.0f;
constexpr float kNormDamping = 1.0f;
// Inputs up to which matrices are quantized side by side.
constexpr std::int64_t kSideBySide = 4096;
// Elements of a matrix's fp32 values above which the head is rounded to nearest instead.
constexpr std::int64_t kLargestHead = std::int64_t{1} << 28;

class Loop {
 public:
  Loop(const CalibratedRun& run, TensorStore& store, ProgressSink& progress)
      : run_(run),
        store_(store),
        progress_(progress),
        overlay_(std::make_shared<model::OverlaySource>(run.source)),
        hessians_(run.method->encoder->needs == quant::Needs::kHessian) {}

  Status all() {
    const std::int64_t n_layer = run_.source->config().n_layer;
    NARROW_ASSIGN(quantized_, calib::embed(run_.source, *run_.windows));
    if (matching()) original_ = quantized_.copy();
    drop_source();
    progress_.begin("quantize", static_cast<std::uint64_t>(n_layer + 1), "layers");
    for (std::int64_t l = 0; l < n_layer; ++l) {
      NARROW_TRY(layer(l));
      progress_.update(static_cast<std::uint64_t>(l + 1), fmt::format("blk.{}", l));
    }
    NARROW_TRY(ends());
    progress_.end();
    return {};
  }

 private:
  const TensorInfo& info(std::size_t i) const { return run_.source->tensors()[i]; }
  bool is_matrix(std::size_t i) const {
    return format_info(run_.plan->types[i]).kind == FormatKind::kQuantized && model::is_quantizable(info(i));
  }
  bool matching() const { return hessians_ && run_.options->sequential; }
  std::size_t match_every() const {
    return static_cast<std::size_t>((run_.windows->size() + kMatchTokens - 1) / kMatchTokens);
  }
  bool corrects_norms() const { return run_.method->norms && run_.options->sequential; }

  Status layer(std::int64_t l) {
    const std::string prefix = fmt::format("blk.{}.", l);
    std::vector<std::size_t> layer_matrices;
    bool all_finished = true;
    for (std::size_t i = 0; i < run_.plan->types.size(); ++i) {
      if (!info(i).name.starts_with(prefix) || !is_matrix(i)) continue;
      layer_matrices.push_back(i);
      all_finished = all_finished && store_.finished(i);
    }
    all_finished = all_finished && (!corrects_norms() || norms_finished(prefix));
    if (all_finished) {
      if (matching())
        NARROW_TRY(advance(run_.source, l, original_, {runtime::Compute::kFloat, match_every()}));
      if (!run_.options->sequential)
        NARROW_TRY(advance(run_.source, l, quantized_, {runtime::Compute::kStored}));
      NARROW_TRY(finish_part(prefix, layer_matrices, {}));
      if (run_.options->sequential) NARROW_TRY(advance(overlay_, l, quantized_, {runtime::Compute::kStored}));
    } else {
      for (const Part& p : parts()) NARROW_TRY(part(l, prefix, layer_matrices, p));
    }
    for (std::size_t i = 0; i < run_.plan->types.size(); ++i) {
      if (info(i).name.starts_with(prefix)) overlay_->restore(i);
    }
    moments_.clear();
    return {};
  }

  // Inputs of a layer, what has to run for them, and whether nothing behind that is left to quantize in it.
  struct Part {
    Taps taps;
    Half half;
    bool ends;
  };

  // Of a layer: one, or in the order in which it computes, so that each sees what those before it have
  // become.
  std::vector<Part> parts() const {
    if (!run_.options->sequential || !run_.method->encoder->stepwise) return {{{}, Half::kBoth, true}};
    const bool halves = !run_.source->config().parallel_residual;
    const Half first = halves ? Half::kAttention : Half::kBoth,
               second = halves ? Half::kFeedForward : Half::kBoth;
    return {{{Tap::kAttention}, first, false},
            {{Tap::kAttnOutput}, first, halves},
            {{Tap::kFeedForward, Tap::kExpert}, second, false},
            {{Tap::kFfnDown, Tap::kExpertDown}, second, true}};
  }

  // The matrices behind the part's taps, from their moments on.
  Status part(std::int64_t l, const std::string& prefix, const std::vector<std::size_t>& layer_matrices,
              const Part& p) {
    MomentOptions options;
    options.match_every = matching() ? match_every() : 0;
    options.half = p.half;
    options.move_original = p.ends;
    options.move_quantized = !run_.options->sequential;
    const bool judge = run_.method->encoder->judges && run_.windows->lengths.size() >= 2 * kHeldOutEvery;
    options.held_out_every = judge ? kHeldOutEvery : 0;
    options.taps = p.taps;
    NARROW_ASSIGN(moments_, collect_moments(run_.source, overlay_, l, *run_.windows, original_, quantized_,
                                            options, progress_));
    drop_source();
    NARROW_TRY(finish_part(prefix, layer_matrices, p.taps));
    if (!p.ends || !run_.options->sequential) return {};
    return advance(overlay_, l, quantized_, {runtime::Compute::kStored, 1, p.half});
  }

  // Pages of the source's file that were read are not needed again soon, and Hessians want the memory.
  void drop_source() const {
    for (std::size_t i = 0; i < run_.source->tensors().size(); ++i) run_.source->drop(i);
  }

  // What follows once the moments are there.
  Status finish_part(const std::string& prefix, const std::vector<std::size_t>& layer_matrices,
                     const Taps& taps) {
    std::vector<std::size_t> own;
    for (const std::size_t i : layer_matrices) {
      if (among(taps, runtime::tap_of(info(i).name))) own.push_back(i);
    }
    NARROW_TRY(matrices(own));
    if (corrects_norms()) {
      if (among(taps, Tap::kAttention)) NARROW_TRY(correct_norm(prefix, "attn_norm", Tap::kAttention));
      if (among(taps, Tap::kFeedForward)) NARROW_TRY(correct_norm(prefix, "ffn_norm", Tap::kFeedForward));
      NARROW_TRY(correct_biases(prefix, taps));
    }
    return {};
  }

  Status advance(const std::shared_ptr<const model::ModelSource>& source, std::int64_t l, Stream& stream,
                 const calib::WalkOptions& options) {
    return calib::run_layer(source, l, *run_.windows, stream, &stream, nullptr, progress_, options);
  }

  Moments* moments_of(std::size_t i, std::int64_t expert) {
    const auto it = moments_.find({runtime::tap_of(info(i).name), expert});
    return it == moments_.end() || it->second.k == 0 ? nullptr : &it->second;
  }

  Result<std::vector<float>> values(const model::ModelSource& source, std::size_t i) const {
    std::vector<float> w(static_cast<std::size_t>(info(i).shape.elements()));
    NARROW_TRY(source.read_f32(i, 0, info(i).shape.rows(), w.data()));
    return w;
  }

  std::span<const std::int32_t> kept_of(std::size_t i) const {
    return run_.kept != nullptr ? run_.kept->of(i) : std::span<const std::int32_t>();
  }

  struct Encoded {
    AlignedBuffer<std::byte> bytes;
    std::vector<float> kept;  // weights of the columns that are stored apart
    quant::WeightError error;
    Status status;
  };

  // All unfinished matrices of a layer. Small ones side by side, each on one thread, which keeps all threads
  // busy through factorisations that take one; large ones, whose Hessians fill memory, one after the other.
  Status matrices(const std::vector<std::size_t>& all) {
    std::vector<std::size_t> open;
    std::int64_t widest = 0;
    for (const std::size_t i : all) {
      if (store_.finished(i)) continue;
      open.push_back(i);
      widest = std::max(widest, info(i).shape.row_length());
    }
    const auto cost = [&](std::size_t i) { return info(i).shape.elements() * info(i).shape.row_length(); };
    std::stable_sort(open.begin(), open.end(),
                     [&](std::size_t x, std::size_t y) { return cost(x) > cost(y); });
    std::vector<Encoded> encoded(open.size());
    const auto one = [&](std::int64_t item, int) {
      Encoded& e = encoded[static_cast<std::size_t>(item)];
      e.status = encode_tensor(open[static_cast<std::size_t>(item)], e);
    };
    const auto count = static_cast<std::int64_t>(open.size());
    const bool together = widest <= kSideBySide;
    if (together) parallel_for(count, one);
    for (std::int64_t item = 0; item < count; ++item) {
      if (!together) one(item, 0);
      Encoded& e = encoded[static_cast<std::size_t>(item)];
      NARROW_TRY(e.status);
      const std::size_t i = open[static_cast<std::size_t>(item)];
      NARROW_TRY(store(i, e));
      NARROW_TRY(show_new(i, std::move(e)));
    }
    for (const std::size_t i : all) {
      if (!overlay_->replaced(i)) NARROW_TRY(show(i));
    }
    return {};
  }

  Status store(std::size_t i, Encoded& e) {
    NARROW_TRY(store_.write(i, 0, e.bytes.span()));
    NARROW_TRY(store_.finish_tensor(i, loss_note(e.error)));
    return e.kept.empty() ? Status() : run_.kept->store(i, e.kept);
  }

  // A matrix, or one expert of several after the other.
  Status encode_tensor(std::size_t i, Encoded& out) {
    const Shape& shape = info(i).shape;
    const Format format = run_.plan->types[i];
    out.bytes.resize(static_cast<std::size_t>(shape.rows()) * row_bytes(format, shape.row_length()));
    const std::int64_t experts = shape.rank() == 3 ? shape[0] : 1, n = shape.rows() / experts,
                       k = shape.row_length();
    std::vector<float> w(static_cast<std::size_t>(n * k));
    for (std::int64_t e = 0; e < experts; ++e) {
      NARROW_TRY(run_.source->read_f32(i, e * n, (e + 1) * n, w.data()));
      run_.source->drop(i);
      if (const std::int64_t bad = find_non_finite(w.data(), n * k); bad >= 0) {
        return non_finite_error(run_.source->path().string(), info(i), e * n * k + bad,
                                w[static_cast<std::size_t>(bad)]);
      }
      quant::WeightError error;
      NARROW_TRY(encode(w, n, k, format, moments_of(i, shape.rank() == 3 ? e : -1), i, out.kept,
                        out.bytes.data() + static_cast<std::size_t>(e * n) * row_bytes(format, k), &error));
      out.error.add(error);
    }
    return {};
  }

  Status encode(std::vector<float>& w, std::int64_t n, std::int64_t k, Format format, const Moments* m,
                std::size_t i, std::vector<float>& kept, std::byte* out, quant::WeightError* error) {
    quant::QuantizeSpec spec;
    spec.format = format;
    spec.search = run_.options->search;
    spec.damping = static_cast<float>(run_.options->damping);
    quant::LayerStats stats;
    const quant::Method* method = run_.method->encoder;
    std::vector<float> diagonal, gradients;
    AlignedBuffer<float> rest, rest_held_out;  // of the inputs that meet codes
    if (run_.gradients != nullptr) {
      NARROW_ASSIGN(gradients, run_.gradients->of(info(i).name));
      if (gradients.size() == static_cast<std::size_t>(n) * static_cast<std::size_t>(n))
        stats.output = gradients;
    }
    if (m != nullptr && m->tokens > 0) {
      diagonal = m->diagonal();
      stats.mean_square = diagonal;
      stats.hessian = m->hessian();
      stats.held_out = m->held_out.span();
      if (m->difference.size() != 0) NARROW_TRY(match(*m, n, w));
      if (!kept_of(i).empty()) {
        stats.hessian = without(kept_of(i), k, m->q, rest);
        if (m->held_out.size() != 0) stats.held_out = without(kept_of(i), k, m->held_out, rest_held_out);
      }
    } else if (hessians_) {
      method = quant::find_method("rtn");  // nothing is known of its inputs
    }
    for (std::int64_t r = 0; r < n; ++r) {
      for (const std::int32_t c : kept_of(i)) {
        kept.push_back(std::exchange(w[static_cast<std::size_t>(r * k + c)], 0.0f));
      }
    }
    NARROW_TRY(method->quantize(w.data(), n, k, stats, spec, out, error));
    if (!run_.options->compare_rounding || stats.hessian.empty()) return {};
    return compare_rounding(w, n, k, stats, spec, out, *error);
  }

  // h [k, k] as of inputs that are 0 in `columns`, which then weigh as much as others do and meet none of
  // them: their weights are 0, and so will be their codes.
  static std::span<const float> without(std::span<const std::int32_t> columns, std::int64_t k,
                                        const AlignedBuffer<float>& h, AlignedBuffer<float>& out) {
    const auto at = [k](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * k + j); };
    out.resize(h.size());
    std::copy_n(h.data(), h.size(), out.data());
    double others = 0;
    for (std::int64_t j = 0; j < k; ++j) others += static_cast<double>(h[at(j, j)]);
    for (const std::int32_t c : columns) others -= static_cast<double>(h[at(c, c)]);
    const auto count = static_cast<double>(k) - static_cast<double>(columns.size());
    for (const std::int32_t c : columns) {
      for (std::int64_t j = 0; j < k; ++j) out[at(c, j)] = out[at(j, c)] = 0.0f;
      out[at(c, c)] = count > 0 ? static_cast<float>(others / count) : 1.0f;
    }
    return out.span();
  }

  // What the outputs lose, and what rounding to nearest would make of the same weights.
  Status compare_rounding(const std::vector<float>& w, std::int64_t n, std::int64_t k,
                          const quant::LayerStats& stats, const quant::QuantizeSpec& spec,
                          const std::byte* stored, quant::WeightError& error) const {
    NARROW_ASSIGN(error.output_error,
                  quant::output_error(w.data(), stored, spec.format, n, k, stats.hessian, stats.output));
    AlignedBuffer<std::byte> nearest(static_cast<std::size_t>(n) * row_bytes(spec.format, k));
    quant::LayerStats alone = stats;
    alone.output = {};
    NARROW_TRY(quant::find_method("rtn")->quantize(w.data(), n, k, alone, spec, nearest.data(), nullptr));
    NARROW_ASSIGN(error.rounded_output_error, quant::output_error(w.data(), nearest.data(), spec.format, n, k,
                                                                  stats.hessian, stats.output));
    NARROW_ASSIGN(error.output_energy,
                  quant::output_error(w.data(), nullptr, spec.format, n, k, stats.hessian, stats.output));
    return {};
  }

  // w becomes the weights whose outputs on x_q are nearest to those of w on x_o.
  Status match(const Moments& m, std::int64_t n, std::vector<float>& w) const {
    const std::int64_t k = m.k;
    const std::size_t size = m.q.size();
    AlignedBuffer<float> u(size);
    double mean = 0;
    for (std::int64_t j = 0; j < k; ++j) {
      mean += static_cast<double>(m.q[static_cast<std::size_t>(j * k + j)]) / static_cast<double>(k);
    }
    std::copy_n(m.q.data(), size, u.data());
    for (std::int64_t j = 0; j < k; ++j) {
      float& d = u[static_cast<std::size_t>(j * k + j)];
      d += kMatchDamping * d + 1e-4f * static_cast<float>(mean);
    }
    if (!ops::inverse_factor(k, u.data(), u.data()).ok()) return {};  // no target is better than a wrong one
    constexpr std::int64_t kStretch = 64;
    const std::int64_t items = (n + kStretch - 1) / kStretch;
    std::vector<Status> status(static_cast<std::size_t>(items));
    std::vector<AlignedBuffer<float>> a(static_cast<std::size_t>(thread_count())), b(a.size());
    parallel_for(items, [&](std::int64_t item, int thread) {
      AlignedBuffer<float>&x = a[static_cast<std::size_t>(thread)], &y = b[static_cast<std::size_t>(thread)];
      x.reserve_at_least(static_cast<std::size_t>(kStretch * k));
      y.reserve_at_least(static_cast<std::size_t>(kStretch * k));
      const std::int64_t begin = item * kStretch, rows = std::min(kStretch, n - begin);
      Status& s = status[static_cast<std::size_t>(item)];
      float* own = w.data() + begin * k;
      // D, then u^T, then u.
      s = ops::gemm_f32_single(false, rows, k, k, 1.0f, own, k, m.difference.data(), k, x.data(), k);
      if (s.ok()) s = ops::gemm_f32_single(true, rows, k, k, 1.0f, x.data(), k, u.data(), k, y.data(), k);
      if (s.ok()) s = ops::gemm_f32_single(false, rows, k, k, 1.0f, y.data(), k, u.data(), k, x.data(), k);
      if (!s.ok()) return;
      for (std::int64_t j = 0; j < rows * k; ++j) own[j] += kMatching * x[static_cast<std::size_t>(j)];
    });
    for (const Status& s : status) NARROW_TRY(s);
    return {};
  }

  // Float parameters are stored as the plan says, and read back as they then are.
  Status store_floats(std::size_t i, const std::vector<float>& v) {
    const Format f = run_.plan->types[i];
    AlignedBuffer<std::byte> out(row_bytes(f, static_cast<std::int64_t>(v.size())));
    AlignedBuffer<float> scratch;
    StreamStats stats;
    NARROW_TRY(cast_values(v.data(), static_cast<std::int64_t>(v.size()), f, out.data(), scratch, stats));
    NARROW_TRY(store_.write(i, 0, out.span()));
    NARROW_TRY(store_.finish_tensor(i));
    return overlay_->replace(i, f, std::move(out));
  }

  // What is stored, into the overlay: the layers after it see it.
  Status show(std::size_t i) {
    AlignedBuffer<std::byte> out(run_.plan->outputs[i].bytes());
    NARROW_TRY(store_.read(i, out.data()));
    return overlay_->replace(i, run_.plan->types[i], std::move(out));
  }

  // The same of what has just been stored; in fp32 where some of its columns are stored apart.
  Status show_new(std::size_t i, Encoded e) {
    const Format format = run_.plan->types[i];
    if (e.kept.empty()) return overlay_->replace(i, format, std::move(e.bytes));
    const std::int64_t rows = info(i).shape.rows(), k = info(i).shape.row_length();
    std::vector<float> values(static_cast<std::size_t>(rows * k));
    const std::span<const std::int32_t> columns = kept_of(i);
    for (std::int64_t r = 0; r < rows; ++r) {
      float* row = values.data() + r * k;
      format_info(format).decode(e.bytes.data() + static_cast<std::size_t>(r) * row_bytes(format, k), row, k);
      for (std::size_t c = 0; c < columns.size(); ++c) {
        row[columns[c]] = e.kept[static_cast<std::size_t>(r) * columns.size() + c];
      }
    }
    return overlay_->replace(i, values);
  }

  bool norms_finished(const std::string& prefix) const {
    for (const char* name : {"attn_norm.weight", "ffn_norm.weight"}) {
      const auto i = run_.source->find(prefix + name);
      if (i && !store_.finished(*i)) return false;
    }
    for (std::size_t i = 0; i < info_count(); ++i) {
      if (correctable_bias(prefix, i) && !store_.finished(i)) return false;
    }
    return true;
  }
  std::size_t info_count() const { return run_.source->tensors().size(); }

  Status correct_norm(const std::string& prefix, const std::string& stem, Tap tap) {
    const auto gain = run_.source->find(prefix + stem + ".weight"),
               bias = run_.source->find(prefix + stem + ".bias");
    if (!gain) return {};
    if (store_.finished(*gain)) {
      NARROW_TRY(show(*gain));
      return bias ? show(*bias) : Status{};
    }
    const auto it = moments_.find({tap, -1});
    const std::int64_t k = run_.source->config().n_embd;
    std::vector<float> s(static_cast<std::size_t>(k), 1.0f);
    // A router reads the same norm, in fp32: it must not be misled.
    const bool routed =
        tap == Tap::kFeedForward && run_.source->find(prefix + "ffn_gate_inp.weight").has_value();
    if (it != moments_.end() && it->second.tokens > 0 && !routed) {
      const Moments& m = it->second;
      AlignedBuffer<float> cross(m.difference.size());  // E[x_o x_q^T]
      for (std::size_t i = 0; i < cross.size(); ++i) cross[i] = m.q[i] + m.difference[i];
      quant::GainFit fit(k, m.hessian(), cross.span());
      for (std::size_t i = 0; i < info_count(); ++i) {
        if (!info(i).name.starts_with(prefix) || !is_matrix(i) || runtime::tap_of(info(i).name) != tap)
          continue;
        NARROW_ASSIGN(const std::vector<float> exact, values(*run_.source, i));
        NARROW_ASSIGN(const std::vector<float> stored, values(*overlay_, i));
        NARROW_TRY(fit.add(exact.data(), stored.data(), info(i).shape.rows()));
      }
      NARROW_ASSIGN(s, fit.solve(kNormDamping));
    }
    for (const auto& parameter : {gain, bias}) {
      if (!parameter) continue;
      NARROW_ASSIGN(std::vector<float> v, values(*run_.source, *parameter));
      for (std::size_t j = 0; j < v.size(); ++j) v[j] *= s[j];
      NARROW_TRY(store_floats(*parameter, v));
    }
    return {};
  }

  // Biases of quantized matrices of this layer.
  bool correctable_bias(const std::string& prefix, std::size_t i) const {
    const std::string& name = info(i).name;
    if (!name.starts_with(prefix) || !name.ends_with(".bias")) return false;
    const auto weight = run_.source->find(name.substr(0, name.size() - 4) + "weight");
    return weight && is_matrix(*weight);
  }

  Status correct_biases(const std::string& prefix, const Taps& taps) {
    for (std::size_t i = 0; i < info_count(); ++i) {
      if (!correctable_bias(prefix, i) || !among(taps, runtime::tap_of(info(i).name))) continue;
      if (store_.finished(i)) {
        NARROW_TRY(show(i));
        continue;
      }
      const std::string& name = info(i).name;
      const std::size_t weight = *run_.source->find(name.substr(0, name.size() - 4) + "weight");
      NARROW_ASSIGN(std::vector<float> v, values(*run_.source, i));
      if (const Moments* m = moments_of(weight, -1); m != nullptr && m->tokens > 0) {
        NARROW_ASSIGN(const std::vector<float> exact, values(*run_.source, weight));
        NARROW_ASSIGN(const std::vector<float> stored, values(*overlay_, weight));
        const std::vector<float> q(m->mean_q.begin(), m->mean_q.end());
        std::vector<float> o = q;
        for (std::size_t j = 0; j < m->mean_difference.size(); ++j) {
          o[j] += static_cast<float>(m->mean_difference[j]);
        }
        const std::vector<float> change = quant::bias_correction(
            exact.data(), stored.data(), static_cast<std::int64_t>(v.size()), m->k, o, q);
        for (std::size_t j = 0; j < v.size(); ++j) v[j] += change[j];
      }
      NARROW_TRY(store_floats(i, v));
    }
    return {};
  }

  // Embedding and head. The head's input is normed, so its moments come from the stream alone; an embedding
  // that serves as the head is quantized as the head.
  Status ends() {
    const std::vector<std::size_t> heads = calib::calibrated_tensors(*run_.source);
    for (const std::size_t i : heads) {
      if (info(i).name.starts_with("blk.") || !is_matrix(i) || store_.finished(i)) continue;
      if (info(i).shape.elements() > kLargestHead) continue;
      NARROW_TRY(head(i));
    }
    return {};
  }

  Status head(std::size_t i) {
    const std::int64_t n = info(i).shape.rows(), k = info(i).shape.row_length();
    Moments m;
    m.k = k;
    m.q.resize(static_cast<std::size_t>(k * k));
    std::fill_n(m.q.data(), m.q.size(), 0.0f);
    AlignedBuffer<float> normed(static_cast<std::size_t>(calib::kMaxWindow * k));
    for (std::int64_t begin = 0; begin < quantized_.size(); begin += calib::kMaxWindow) {
      const std::int64_t rows = std::min(calib::kMaxWindow, quantized_.size() - begin);
      const ops::Matrix out(normed.data(), rows, k);
      NARROW_TRY(calib::head_input(*run_.source, quantized_.rows(begin, rows), out));
      NARROW_TRY(ops::add_gram(out, m.q.data()));
    }
    m.tokens = quantized_.size();
    m.finish();
    NARROW_ASSIGN(std::vector<float> w, values(*run_.source, i));
    if (const std::int64_t bad = find_non_finite(w.data(), n * k); bad >= 0) {
      return non_finite_error(run_.source->path().string(), info(i), bad, w[static_cast<std::size_t>(bad)]);
    }
    const Format format = run_.plan->types[i];
    Encoded e;
    e.bytes.resize(static_cast<std::size_t>(n) * row_bytes(format, k));
    NARROW_TRY(encode(w, n, k, format, &m, i, e.kept, e.bytes.data(), &e.error));
    return store(i, e);
  }

  const CalibratedRun& run_;
  TensorStore& store_;
  ProgressSink& progress_;
  std::shared_ptr<model::OverlaySource> overlay_;
  bool hessians_;
  Stream original_, quantized_;
  std::map<TapKey, Moments> moments_;
};

}  // namespace

Status produce_calibrated(const CalibratedRun& run, TensorStore& store, ProgressSink& progress) {
  return Loop(run, store, progress).all();
}

}  // namespace narrow::pipeline

#include "runtime/decoder.h"

#include <algorithm>
#include <cmath>

#include "kernels/dispatch.h"
#include "ops/attention.h"
#include "ops/route.h"
#include "ops/rows.h"

namespace narrow::runtime {
namespace {

// Embedding rows looked up before their pages are given back: each may map 64 KB of the file.
constexpr std::int64_t kLookups = 128;

using model::ModelConfig;
using ops::ConstMatrix;
using ops::Matrix;

std::int64_t query_width(const ModelConfig& c) { return c.n_head * c.head_dim; }
std::int64_t key_width(const ModelConfig& c) { return c.n_head_kv * c.head_dim; }

// The widest inside of a feed-forward branch.
std::int64_t ffn_width(const ModelConfig& c) {
  const bool moe = std::any_of(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.moe; });
  const std::int64_t dense = c.gated_ffn ? 2 * c.n_ff : c.n_ff;
  return std::max(dense, moe ? 2 * c.n_ff_expert : 0);
}

ops::Activation activation(model::Activation a) {
  const kernels::KernelTable& kt = kernels::kernels();
  switch (a) {
    case model::Activation::kSilu:
      return {kt.silu, kt.silu_mul};
    case model::Activation::kGeluTanh:
      return {kt.gelu_tanh, kt.gelu_tanh_mul};
    case model::Activation::kGeluErf:
      return {kt.gelu_erf, nullptr};
    case model::Activation::kRelu:
      break;
  }
  return {kt.relu, nullptr};
}

void add_bias(Matrix y, const std::vector<float>& bias) {
  if (!bias.empty()) ops::add_bias(y, bias.data());
}

}  // namespace

Decoder::Decoder(std::shared_ptr<const LoadedModel> model, std::unique_ptr<KvPool> pool, std::int64_t rows)
    : model_(std::move(model)),
      config_(model_->config()),
      weights_(model_->weights()),
      pool_(std::move(pool)) {
  const ModelConfig& c = config_;
  const auto reserve = [rows](AlignedBuffer<float>& b, std::int64_t width) {
    b.resize(static_cast<std::size_t>(rows * width));
  };
  for (AlignedBuffer<float>* b : {&x_, &normed_, &branch_}) reserve(*b, c.n_embd);
  if (c.parallel_residual) reserve(branch2_, c.n_embd);
  reserve(qkv_, query_width(c) + 2 * key_width(c));
  reserve(heads_, query_width(c));
  reserve(ffn_, ffn_width(c));
  if (c.n_expert > 0) {
    reserve(router_, c.n_expert);
    reserve(expert_in_, c.n_embd);
    reserve(expert_out_, c.n_embd);
  }
}

Result<std::unique_ptr<Decoder>> Decoder::create(std::shared_ptr<const LoadedModel> model, int n_sequences,
                                                 std::int64_t n_ctx, const SessionOptions& options) {
  const ModelConfig& c = model->config();
  const Format usual = model->weights().any_quantized ? Format::kF16 : Format::kF32;
  const KvOptions kv = {options.cache_keys.value_or(usual), options.cache_values.value_or(usual),
                        options.rotate_keys};
  std::vector<std::int64_t> windows;
  for (const model::LayerConfig& l : c.layers) windows.push_back(l.sliding ? c.sliding_window : 0);
  const std::int64_t pages = (n_ctx + kernels::kPagePositions - 1) / kernels::kPagePositions;
  NARROW_ASSIGN(auto pool, KvPool::create(kv, c.n_head_kv, c.head_dim, windows,
                                          n_sequences * pages * kernels::kPagePositions));
  std::unique_ptr<Decoder> d(
      new Decoder(std::move(model), std::move(pool), std::min(kChunk, n_sequences * n_ctx)));
  d->after_layer_ = options.after_layer;
  d->taps_ = options.taps;
  const model::RopeConfig& rope = d->config_.rope;
  if (d->config_.position != model::Position::kRope) return d;
  NARROW_ASSIGN(std::vector<double> steps, rope_steps(rope, false, n_ctx));
  const bool has_magnitude =
      rope.scaling == model::RopeScaling::kYarn || rope.scaling == model::RopeScaling::kLongRope;
  d->rope_ = RopeTable(std::move(steps), has_magnitude ? rope.attention_factor : 1.0f);
  d->has_local_rope_ = rope.theta_local > 0.0f;
  if (d->has_local_rope_) {
    NARROW_ASSIGN(std::vector<double> local, rope_steps(rope, true, n_ctx));
    d->rope_local_ = RopeTable(std::move(local), 1.0f);
  }
  return d;
}

void Decoder::normalise(const Norm& norm, ConstMatrix x, Matrix out) const {
  if (config_.norm == model::NormKind::kLayer) {
    const float* bias = norm.bias.empty() ? nullptr : norm.bias.data();
    ops::layer_norm(x, norm.gain.data(), bias, config_.norm_eps, out);
  } else {
    ops::rms_norm(x, norm.gain.data(), config_.norm_eps, x.cols, out);
  }
}

void Decoder::prepare_input(const Norm& norm, ConstMatrix x, ops::Forms forms) {
  const Matrix normed(normed_.data(), x.rows, x.cols);
  if (!norm.present()) {
    input_.assign(x, forms);
  } else if (config_.norm == model::NormKind::kRms) {
    input_.assign_rms_norm(x, norm.gain.data(), config_.norm_eps, forms, normed);
  } else {
    normalise(norm, x, normed);
    input_.assign(normed, forms);
  }
}

Status Decoder::embed(std::span<const std::int32_t> tokens) {
  const Matrix x = rows(x_, config_.n_embd);
  for (std::int64_t r = 0; r < m_; r += kLookups) {
    const std::int64_t n = std::min(kLookups, m_ - r);
    const auto ids = tokens.subspan(static_cast<std::size_t>(r), static_cast<std::size_t>(n));
    NARROW_TRY(ops::embedding(weights_.embedding, ids, config_.embedding_scale,
                              {x.row(r), n, config_.n_embd, x.stride}));
    lookups_ += n;
    if (lookups_ < kLookups) continue;
    model_->release_embedding();
    lookups_ = 0;
  }
  if (config_.position != model::Position::kLearned) return {};
  const std::vector<std::int32_t> positions(positions_.begin(), positions_.end());
  const Matrix p = rows(branch_, config_.n_embd);
  NARROW_TRY(ops::embedding(weights_.positions, positions, 1.0f, p));
  ops::add_scaled(p, 1.0f, x);
  return {};
}

// Norms and rotation of queries and keys.
void Decoder::position_qk(std::int64_t layer, Matrix q, Matrix k) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  if (config_.qk_norm != model::QkNorm::kNone) {
    const bool per_head = config_.qk_norm == model::QkNorm::kPerHead;
    ops::rms_norm(q, w.q_norm.gain.data(), config_.norm_eps, per_head ? config_.head_dim : q.cols, q);
    ops::rms_norm(k, w.k_norm.gain.data(), config_.norm_eps, per_head ? config_.head_dim : k.cols, k);
  }
  const model::LayerConfig& lc = config_.layers[static_cast<std::size_t>(layer)];
  if (config_.position != model::Position::kRope || !lc.rope) return;
  const RopeTable& table = lc.sliding && has_local_rope_ ? rope_local_ : rope_;
  const bool interleaved = config_.rope.style == model::RopeStyle::kInterleaved;
  for (const Matrix& heads : {q, k}) {
    ops::rope(heads, config_.head_dim, config_.rope.dims, interleaved, table.cos(), table.sin());
  }
}

ops::Forms Decoder::watched(ops::Forms forms) const {
  forms.f32 = forms.f32 || taps_ != nullptr;
  return forms;
}

Status Decoder::tap(std::int64_t layer, Tap tap, const ops::Activations& x, std::int64_t expert) {
  if (taps_ == nullptr) return {};
  return taps_->take(layer, tap, expert, x.f32());
}

Status Decoder::attention(std::int64_t layer, Matrix out) {
  const ModelConfig& c = config_;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  prepare_input(w.attn_norm, rows(x_, c.n_embd),
                watched(ops::Forms::of({&w.qkv.weight, &w.q.weight, &w.k.weight, &w.v.weight})));
  NARROW_TRY(tap(layer, Tap::kAttention, input_));
  const std::int64_t n_q = query_width(c), n_kv = key_width(c);
  const Matrix qkv = rows(qkv_, n_q + 2 * n_kv);
  const Matrix q = qkv.columns(0, n_q), k = qkv.columns(n_q, n_kv), v = qkv.columns(n_q + n_kv, n_kv);
  if (w.qkv.present()) {
    NARROW_TRY(ops::matmul(input_, w.qkv.weight, qkv));
    add_bias(qkv, w.qkv.bias);
  } else {
    const ops::Product products[] = {{w.q.weight, q}, {w.k.weight, k}, {w.v.weight, v}};
    NARROW_TRY(ops::matmul(input_, products));
    add_bias(q, w.q.bias);
    add_bias(k, w.k.bias);
    add_bias(v, w.v.bias);
  }
  position_qk(layer, q, k);
  const ops::CacheLayout& layout = pool_->layout();
  attention_runs_.clear();
  for (const RowRange& r : ranges_) {
    attention_runs_.push_back(r.sequence->run(layer, r.begin, r.rows));
    ops::store_cache(layout, k, v, attention_runs_.back());
  }

  ops::AttentionSpec spec;
  spec.n_head = c.n_head;
  spec.n_head_kv = c.n_head_kv;
  spec.head_dim = c.head_dim;
  spec.scale = c.attn_scale != 0.0f ? c.attn_scale : 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  spec.softcap = c.attn_softcap;
  spec.window = c.layers[static_cast<std::size_t>(layer)].sliding ? c.sliding_window : 0;
  const Matrix heads = rows(heads_, n_q);
  NARROW_TRY(ops::attention(spec, layout, q, attention_runs_, heads));
  inner_.assign(heads, watched(ops::Forms::of({&w.attn_out.weight})));
  NARROW_TRY(tap(layer, Tap::kAttnOutput, inner_));
  NARROW_TRY(ops::matmul(inner_, w.attn_out.weight, out));
  add_bias(out, w.attn_out.bias);
  if (w.post_attn_norm.present()) normalise(w.post_attn_norm, out, out);
  return {};
}

Status Decoder::dense_feed_forward(std::int64_t layer, Matrix out) {
  const ModelConfig& c = config_;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  prepare_input(w.ffn_norm, rows(x_, c.n_embd), watched(ops::Forms::of({&w.gate.weight, &w.up.weight})));
  NARROW_TRY(tap(layer, Tap::kFeedForward, input_));
  const Matrix inner = rows(ffn_, c.gated_ffn ? 2 * c.n_ff : c.n_ff);
  const Matrix first = inner.columns(0, c.n_ff);  // the gate, or all there is
  const Matrix second = c.gated_ffn ? inner.columns(c.n_ff, c.n_ff) : Matrix();
  if (w.gate.present()) {
    const ops::Product products[] = {{w.gate.weight, first}, {w.up.weight, second}};
    NARROW_TRY(ops::matmul(input_, products));
    add_bias(first, w.gate.bias);
    add_bias(second, w.up.bias);
  } else {
    NARROW_TRY(ops::matmul(input_, w.up.weight, inner));
    add_bias(inner, w.up.bias);
  }
  inner_.assign_activated(activation(c.activation), first, second, watched(ops::Forms::of({&w.down.weight})));
  NARROW_TRY(tap(layer, Tap::kFfnDown, inner_));
  NARROW_TRY(ops::matmul(inner_, w.down.weight, out));
  add_bias(out, w.down.bias);
  return {};
}

// Each expert takes the rows that chose it; a row's results are added in the order of the experts.
Status Decoder::expert_feed_forward(std::int64_t layer, Matrix out) {
  const ModelConfig& c = config_;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  const Matrix scores = rows(router_, c.n_expert);
  ops::Forms forms = ops::Forms::of({&w.router});
  forms.f32 = true;  // the experts' rows are gathered from it
  prepare_input(w.ffn_norm, rows(x_, c.n_embd), forms);
  NARROW_TRY(tap(layer, Tap::kFeedForward, input_));
  NARROW_TRY(ops::matmul(input_, w.router, scores));
  const ConstMatrix x = input_.f32();
  const std::vector<ops::Choice> choices =
      ops::choose_experts(scores, c.n_expert_used, c.expert_weights_norm);
  for (std::int64_t r = 0; r < out.rows; ++r) std::fill(out.row(r), out.row(r) + out.cols, 0.0f);

  std::vector<std::size_t> mine;  // choices of one expert
  for (std::int64_t e = 0; e < c.n_expert; ++e) {
    const auto index = static_cast<std::size_t>(e);
    const ops::Weight &w_gate = w.gate_experts[index], &w_up = w.up_experts[index],
                      &w_down = w.down_experts[index];
    mine.clear();
    for (std::size_t i = 0; i < choices.size(); ++i) {
      if (choices[i].expert == e) mine.push_back(i);
    }
    if (mine.empty()) continue;
    const auto row_of = [&](std::size_t i) { return static_cast<std::int64_t>(mine[i]) / c.n_expert_used; };
    const auto count = static_cast<std::int64_t>(mine.size());
    const Matrix in(expert_in_.data(), count, c.n_embd), result(expert_out_.data(), count, c.n_embd);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const float* from = x.row(row_of(i));
      std::copy(from, from + c.n_embd, in.row(static_cast<std::int64_t>(i)));
    }
    const Matrix inner(ffn_.data(), count, 2 * c.n_ff_expert);
    const Matrix gate = inner.columns(0, c.n_ff_expert), up = inner.columns(c.n_ff_expert, c.n_ff_expert);
    const ops::Product products[] = {{w_gate, gate}, {w_up, up}};
    inner_.assign(in, watched(ops::Forms::of({&w_gate, &w_up})));
    NARROW_TRY(tap(layer, Tap::kExpert, inner_, e));
    NARROW_TRY(ops::matmul(inner_, products));
    inner_.assign_activated(activation(c.activation), gate, up, watched(ops::Forms::of({&w_down})));
    NARROW_TRY(tap(layer, Tap::kExpertDown, inner_, e));
    NARROW_TRY(ops::matmul(inner_, w_down, result));
    for (std::size_t i = 0; i < mine.size(); ++i) {
      kernels::kernels().axpy_f32(choices[mine[i]].weight, result.row(static_cast<std::int64_t>(i)),
                                  out.row(row_of(i)), c.n_embd);
    }
  }
  return {};
}

Status Decoder::feed_forward(std::int64_t layer, Matrix out) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  const bool moe = config_.layers[static_cast<std::size_t>(layer)].moe;
  NARROW_TRY(moe ? expert_feed_forward(layer, out) : dense_feed_forward(layer, out));
  if (w.post_ffn_norm.present()) normalise(w.post_ffn_norm, out, out);
  return {};
}

Status Decoder::layer(std::int64_t index) {
  const ModelConfig& c = config_;
  const Matrix x = rows(x_, c.n_embd), branch = rows(branch_, c.n_embd);
  if (c.parallel_residual) {
    const Matrix second = rows(branch2_, c.n_embd);
    NARROW_TRY(attention(index, branch));
    NARROW_TRY(feed_forward(index, second));
    ops::add_scaled(branch, c.residual_scale, x);
    ops::add_scaled(second, c.residual_scale, x);
    return {};
  }
  if (half_ != Half::kFeedForward) {
    NARROW_TRY(attention(index, branch));
    ops::add_scaled(branch, c.residual_scale, x);
  }
  if (half_ != Half::kAttention) {
    NARROW_TRY(feed_forward(index, branch));
    ops::add_scaled(branch, c.residual_scale, x);
  }
  return {};
}

// Makes room in the caches and lays the rows out.
Status Decoder::start(std::span<const Rows> runs) {
  ranges_.clear();
  positions_.clear();
  for (const Rows& run : runs) {
    NARROW_TRY(run.sequence->reserve(run.rows));
    ranges_.push_back({run.sequence, static_cast<std::int64_t>(positions_.size()), run.rows});
    for (std::int64_t r = 0; r < run.rows; ++r) positions_.push_back(run.sequence->length() + r);
  }
  m_ = static_cast<std::int64_t>(positions_.size());
  return {};
}

// The rows that start() laid out, from x_ to x_.
Status Decoder::layers() {
  if (config_.position == model::Position::kRope) {
    rope_.fill(positions_);
    if (has_local_rope_) rope_local_.fill(positions_);
  }
  for (std::int64_t i = 0; i < config_.n_layer; ++i) {
    NARROW_TRY(layer(i));
    if (after_layer_) after_layer_(i, {x_.data(), static_cast<std::size_t>(m_ * config_.n_embd)});
  }
  for (const RowRange& r : ranges_) r.sequence->advance(r.rows);
  return {};
}

Status Decoder::run(std::span<const Run> runs) {
  std::vector<Rows> counts;
  std::vector<std::int32_t> tokens;
  for (const Run& run : runs) {
    counts.push_back({run.sequence, static_cast<std::int64_t>(run.tokens.size())});
    tokens.insert(tokens.end(), run.tokens.begin(), run.tokens.end());
  }
  NARROW_TRY(start(counts));
  NARROW_TRY(embed(tokens));
  return layers();
}

Status Decoder::run_rows(std::span<const Rows> runs, ops::Matrix x) {
  NARROW_TRY(start(runs));
  const Matrix inside = rows(x_, config_.n_embd);
  for (std::int64_t r = 0; r < m_; ++r) std::copy(x.row(r), x.row(r) + x.cols, inside.row(r));
  NARROW_TRY(layers());
  for (std::int64_t r = 0; r < m_; ++r) std::copy(inside.row(r), inside.row(r) + x.cols, x.row(r));
  return {};
}

Status Decoder::embed_rows(std::span<const Run> runs, ops::Matrix x) {
  std::vector<std::int32_t> tokens;
  positions_.clear();
  for (const Run& run : runs) {
    for (std::size_t r = 0; r < run.tokens.size(); ++r) {
      positions_.push_back(run.sequence->length() + static_cast<std::int64_t>(r));
    }
    tokens.insert(tokens.end(), run.tokens.begin(), run.tokens.end());
  }
  m_ = static_cast<std::int64_t>(positions_.size());
  NARROW_TRY(embed(tokens));
  const Matrix inside = rows(x_, config_.n_embd);
  for (std::int64_t r = 0; r < m_; ++r) std::copy(inside.row(r), inside.row(r) + x.cols, x.row(r));
  return {};
}

Status Decoder::logits(std::span<const std::int64_t> rows, float* out) {
  const std::int64_t n_embd = config_.n_embd, count = static_cast<std::int64_t>(rows.size());
  ConstMatrix x(x_.data() + rows.front() * n_embd, count, n_embd);
  if (rows.back() - rows.front() + 1 != count) {  // scattered rows are gathered; the branches are done
    for (std::int64_t r = 0; r < count; ++r) {
      const float* from = x_.data() + rows[static_cast<std::size_t>(r)] * n_embd;
      std::copy(from, from + n_embd, branch_.data() + r * n_embd);
    }
    x = ConstMatrix(branch_.data(), count, n_embd);
  }
  prepare_input(weights_.final_norm, x, watched(ops::Forms::of({&weights_.head})));
  NARROW_TRY(tap(config_.n_layer, Tap::kHead, input_));
  const Matrix scores(out, count, config_.n_vocab);
  NARROW_TRY(ops::matmul(input_, weights_.head, scores));
  ops::scale_and_cap(scores, config_.logit_scale, config_.final_softcap);
  return {};
}

}  // namespace narrow::runtime

#include "train/decoder.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "runtime/rope_table.h"
#include "train/fused.h"

namespace narrow::train {
namespace {

using model::ModelConfig;

std::string block(std::int64_t layer, const char* what) { return fmt::format("blk.{}.{}", layer, what); }

// Rope factors reach the graph through the config.
bool is_rope_table(const std::string& name) {
  return name.find("rope_freqs") != std::string::npos || name.find("rope_factors_") != std::string::npos ||
         name.find("attn_rot_embd") != std::string::npos;
}

// Runs a layer without keeping its inside, which the backward pass computes again.
class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  using Layer = std::function<at::Tensor(const at::Tensor&)>;
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const Layer* layer) {
    ctx->save_for_backward({x});
    ctx->saved_data["layer"] = reinterpret_cast<std::int64_t>(layer);
    const at::AutoGradMode off(false);
    return (*layer)(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto* layer = reinterpret_cast<const Layer*>(ctx->saved_data["layer"].toInt());
    const at::AutoGradMode on(true);
    const at::Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    // Weights are leaves, or shared by begin_step(): their gradients gather where they are.
    torch::autograd::backward({(*layer)(x)}, {grads[0]});
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

at::Tensor Decoder::weight(const std::string& name) const {
  const auto it = weights_.find(name);
  return it == weights_.end() ? at::Tensor() : it->second;
}

Status Decoder::bind(const model::ModelSource& source, at::ScalarType dtype, at::Device device) {
  const std::string file = source.path().string();
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& info = source.tensors()[i];
    if (is_rope_table(info.name)) continue;
    if (format_info(info.format).decode == nullptr) {
      return make_error(
          ErrorCode::kUnsupported,
          "{}: tensor '{}' is stored as {}, which holds no weights to train; start from the model "
          "that the file was made from",
          file, info.name, format_info(info.format).name);
    }
    at::Tensor t = at::empty(info.shape.dims(), at::kFloat);
    NARROW_TRY(source.read_f32(i, 0, info.shape.rows(), t.data_ptr<float>()));
    source.drop(i);
    weights_[info.name] = t.to(device, dtype);
  }
  const auto require = [&](const std::string& name, std::vector<std::int64_t> shape) -> Status {
    const at::Tensor t = weight(name);
    if (!t.defined()) return make_error(ErrorCode::kNotFound, "{}: tensor '{}' is missing", file, name);
    if (t.sizes() == at::IntArrayRef(shape)) return {};
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is {}, but the model's settings ask for {}", file,
                      name, Shape(t.sizes().vec()).text(), Shape(std::move(shape)).text());
  };
  const ModelConfig& c = config_;
  const std::int64_t n_q = c.n_head * c.head_dim, n_kv = c.n_head_kv * c.head_dim;
  NARROW_TRY(require("token_embd.weight", {c.n_vocab, c.n_embd}));
  NARROW_TRY(require("output_norm.weight", {c.n_embd}));
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    if (weight(block(i, "attn_qkv.weight")).defined()) {
      NARROW_TRY(require(block(i, "attn_qkv.weight"), {n_q + 2 * n_kv, c.n_embd}));
    } else {
      NARROW_TRY(require(block(i, "attn_q.weight"), {n_q, c.n_embd}));
      NARROW_TRY(require(block(i, "attn_k.weight"), {n_kv, c.n_embd}));
      NARROW_TRY(require(block(i, "attn_v.weight"), {n_kv, c.n_embd}));
    }
    NARROW_TRY(require(block(i, "attn_output.weight"), {c.n_embd, n_q}));
    const bool gate = weight(block(i, "ffn_gate.weight")).defined();
    const bool fused = c.gated_ffn && !gate;
    if (gate) NARROW_TRY(require(block(i, "ffn_gate.weight"), {c.n_ff, c.n_embd}));
    NARROW_TRY(require(block(i, "ffn_up.weight"), {fused ? 2 * c.n_ff : c.n_ff, c.n_embd}));
    NARROW_TRY(require(block(i, "ffn_down.weight"), {c.n_embd, c.n_ff}));
  }
  return {};
}

Result<std::unique_ptr<Decoder>> Decoder::create(const model::ModelSource& source, at::ScalarType dtype,
                                                 at::Device device) {
  const ModelConfig& c = source.config();
  if (std::any_of(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.moe; })) {
    return make_error(ErrorCode::kUnsupported, "{}: {} has experts; only dense models can be trained",
                      source.path().string(), c.arch);
  }
  std::unique_ptr<Decoder> d(new Decoder(c));
  NARROW_TRY(d->bind(source, dtype, device));
  if (c.position == model::Position::kRope) {
    NARROW_TRY(runtime::rope_steps(c.rope, false, c.n_ctx_train).status());
    if (c.rope.theta_local > 0) NARROW_TRY(runtime::rope_steps(c.rope, true, c.n_ctx_train).status());
  }
  return d;
}

Result<std::unique_ptr<Decoder>> Decoder::create_random(const ModelConfig& c, std::uint64_t seed,
                                                        at::ScalarType dtype, at::Device device) {
  const bool plain = c.arch == "llama" && c.norm == model::NormKind::kRms &&
                     c.position == model::Position::kRope && c.qk_norm == model::QkNorm::kNone &&
                     c.gated_ffn && !c.qkv_bias && !c.out_bias && !c.ffn_bias && c.n_expert == 0;
  if (!plain) {
    return make_error(
        ErrorCode::kUnsupported,
        "pretraining '{}': only the Llama architecture, without biases and experts, starts from scratch",
        c.arch);
  }
  std::unique_ptr<Decoder> d(new Decoder(c));
  std::uint64_t tensor = 0;
  const auto add = [&](const std::string& name, std::int64_t n, std::int64_t k, float deviation) {
    Rng rng(seed * 0x9e3779b97f4a7c15ull + ++tensor);
    at::Tensor t = at::empty({n, k}, at::kFloat);
    float* p = t.data_ptr<float>();
    for (std::int64_t i = 0; i < n * k; ++i) p[i] = deviation * rng.normal();
    d->weights_[name] = t.to(device, dtype);
  };
  const auto gain = [&](const std::string& name) {
    d->weights_[name] = at::ones({c.n_embd}, at::TensorOptions().dtype(dtype).device(device));
  };
  const std::int64_t n_q = c.n_head * c.head_dim, n_kv = c.n_head_kv * c.head_dim;
  constexpr float kDeviation = 0.02f;
  const float inner = kDeviation / std::sqrt(2.0f * static_cast<float>(c.n_layer));
  add("token_embd.weight", c.n_vocab, c.n_embd, kDeviation);
  if (!c.tied_head) add("output.weight", c.n_vocab, c.n_embd, kDeviation);
  gain("output_norm.weight");
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    gain(block(i, "attn_norm.weight"));
    gain(block(i, "ffn_norm.weight"));
    add(block(i, "attn_q.weight"), n_q, c.n_embd, kDeviation);
    add(block(i, "attn_k.weight"), n_kv, c.n_embd, kDeviation);
    add(block(i, "attn_v.weight"), n_kv, c.n_embd, kDeviation);
    add(block(i, "attn_output.weight"), c.n_embd, n_q, inner);
    add(block(i, "ffn_gate.weight"), c.n_ff, c.n_embd, kDeviation);
    add(block(i, "ffn_up.weight"), c.n_ff, c.n_embd, kDeviation);
    add(block(i, "ffn_down.weight"), c.n_embd, c.n_ff, inner);
  }
  return d;
}

void Decoder::to(at::Device device) {
  const at::NoGradGuard off;
  const auto move = [&](at::Tensor& t) {
    if (t.device() == device) return;
    const bool trained = t.requires_grad();
    t = t.detach().to(device).set_requires_grad(trained);
  };
  for (auto& [name, w] : weights_) move(w);
  for (auto& [name, lora] : loras_) {
    move(lora.a);
    move(lora.b);
  }
  angles_.clear();
  constant_.clear();
}

namespace {

// Nodes compute on the CPU.
at::Tensor through(Node& node, const at::Tensor& x) {
  return x.device().is_cpu() ? node.apply(x) : node.apply(x.to(at::kCPU)).to(x.device());
}

}  // namespace

void Decoder::attach_cache(std::int64_t layer, std::shared_ptr<Node> keys, std::shared_ptr<Node> values) {
  cache_nodes_.resize(static_cast<std::size_t>(config_.n_layer));
  cache_nodes_[static_cast<std::size_t>(layer)] = {std::move(keys), std::move(values)};
}

void Decoder::merge_loras() {
  const at::NoGradGuard guard;
  for (const auto& [name, lora] : loras_) {
    weights_.at(name).add_(at::mm(lora.b, lora.a).to(weights_.at(name).scalar_type()), lora.scale);
  }
  loras_.clear();
  constant_.clear();
}

at::Tensor Decoder::make_effective(const std::string& name) {
  at::Tensor w = weights_.at(name);
  if (const auto lora = loras_.find(name); lora != loras_.end()) {
    w = w + at::mm(lora->second.b, lora->second.a) * lora->second.scale;
  }
  const auto node = weight_nodes_.find(name);
  return node == weight_nodes_.end() ? w : through(*node->second, w);
}

at::Tensor Decoder::effective(const std::string& name) {
  if (const auto shared = shared_.find(name); shared != shared_.end()) return shared->second.leaf;
  if (!weight_nodes_.contains(name) && !loras_.contains(name)) return weights_.at(name);
  if (const auto kept = constant_.find(name); kept != constant_.end()) return kept->second;
  at::Tensor w = make_effective(name);
  if (!w.requires_grad()) constant_[name] = w;
  return w;
}

void Decoder::begin_step() {
  shared_.clear();
  const auto share = [this](const std::string& name) {
    if (shared_.contains(name) || constant_.contains(name)) return;
    at::Tensor out = make_effective(name);
    if (out.requires_grad()) {
      shared_[name] = {out, out.detach().requires_grad_(true)};
    } else {
      constant_[name] = out;
    }
  };
  for (const auto& [name, node] : weight_nodes_) share(name);
  for (const auto& [name, lora] : loras_) share(name);
}

void Decoder::finish_step() {
  for (auto& [name, s] : shared_) {
    const at::Tensor grad = s.leaf.grad();
    if (grad.defined()) torch::autograd::backward({s.out}, {grad});
    s = {};  // one at a time: the gradients of all weights at once are a model of their own
  }
  shared_.clear();
}

at::Tensor Decoder::linear(const std::string& stem, const at::Tensor& x) {
  at::Tensor y = train::linear(x, effective(stem + ".weight"), weight(stem + ".bias"));
  if (observer_) observer_(stem, y);
  return y;
}

at::Tensor Decoder::norm(const std::string& stem, const at::Tensor& x) {
  const at::Tensor gain = weight(stem + ".weight");
  if (!gain.defined()) return x;
  if (config_.norm == model::NormKind::kLayer) {
    return at::layer_norm(x, {x.size(-1)}, gain, weight(stem + ".bias"), config_.norm_eps);
  }
  return rms_norm(x, gain, config_.norm_eps);
}

// Queries or keys [b, t, heads, head_dim].
at::Tensor Decoder::norm_heads(const std::string& stem, const at::Tensor& x) {
  if (config_.qk_norm == model::QkNorm::kNone) return x;
  const at::Tensor gain = weights_.at(stem + ".weight");
  if (config_.qk_norm == model::QkNorm::kPerHead) return rms_norm(x, gain, config_.norm_eps);
  return rms_norm(x.flatten(2), gain, config_.norm_eps).view(x.sizes());
}

const Decoder::Angles& Decoder::angles(std::int64_t t, bool local, const at::Tensor& like) {
  Angles& a = angles_[{t, local}];
  if (a.cos.defined() && a.cos.scalar_type() == like.scalar_type()) return a;
  const model::RopeConfig& rope = config_.rope;
  // Checked by create().
  const std::vector<double> steps = runtime::rope_steps(rope, local, t).value();
  const bool has_magnitude =
      rope.scaling == model::RopeScaling::kYarn || rope.scaling == model::RopeScaling::kLongRope;
  const double magnitude = !local && has_magnitude ? rope.attention_factor : 1.0;
  const auto pairs = static_cast<std::int64_t>(steps.size());
  const at::Tensor step = at::from_blob(const_cast<double*>(steps.data()), {pairs}, at::kDouble);
  const at::Tensor turn = at::outer(at::arange(t, at::kDouble), step);
  a = {(turn.cos() * magnitude).to(like.options()), (turn.sin() * magnitude).to(like.options())};
  return a;
}

// x [b, t, heads, head_dim], rotated by its positions.
at::Tensor Decoder::rotate(const at::Tensor& x, std::int64_t layer) {
  const model::LayerConfig& lc = config_.layers[static_cast<std::size_t>(layer)];
  if (config_.position != model::Position::kRope || !lc.rope) return x;
  const Angles& a = angles(x.size(1), lc.sliding && config_.rope.theta_local > 0, x);
  return rope(x, a.cos, a.sin, config_.rope.style == model::RopeStyle::kInterleaved);
}

at::Tensor Decoder::attention(std::int64_t index, const at::Tensor& x) {
  const ModelConfig& c = config_;
  const std::int64_t b = x.size(0), t = x.size(1), n_q = c.n_head * c.head_dim,
                     n_kv = c.n_head_kv * c.head_dim;
  at::Tensor in = norm(block(index, "attn_norm"), x), q, k, v;
  const bool fused = weights_.contains(block(index, "attn_qkv.weight"));
  const auto node = input_nodes_.find(block(index, fused ? "attn_qkv.weight" : "attn_q.weight"));
  if (node != input_nodes_.end()) in = through(*node->second, in);
  if (fused) {
    const at::Tensor qkv = linear(block(index, "attn_qkv"), in);
    q = qkv.narrow(-1, 0, n_q), k = qkv.narrow(-1, n_q, n_kv), v = qkv.narrow(-1, n_q + n_kv, n_kv);
  } else {
    q = linear(block(index, "attn_q"), in);
    k = linear(block(index, "attn_k"), in);
    v = linear(block(index, "attn_v"), in);
  }
  q = rotate(norm_heads(block(index, "attn_q_norm"), q.reshape({b, t, c.n_head, c.head_dim})), index);
  k = rotate(norm_heads(block(index, "attn_k_norm"), k.reshape({b, t, c.n_head_kv, c.head_dim})), index);
  v = v.reshape({b, t, c.n_head_kv, c.head_dim});
  if (!cache_nodes_.empty()) {
    const auto& [keys, values] = cache_nodes_[static_cast<std::size_t>(index)];
    if (keys) k = through(*keys, k.flatten(0, 1)).view(k.sizes());
    if (values) v = through(*values, v.flatten(0, 1)).view(v.sizes());
  }
  AttentionShape shape;
  shape.scale = c.attn_scale != 0.0f ? c.attn_scale : 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  shape.softcap = c.attn_softcap;
  shape.window = c.layers[static_cast<std::size_t>(index)].sliding ? c.sliding_window : 0;
  at::Tensor out = train::attention(q, k, v, shape);
  const auto inner = input_nodes_.find(block(index, "attn_output.weight"));
  if (inner != input_nodes_.end()) out = through(*inner->second, out);
  return norm(block(index, "post_attention_norm"), linear(block(index, "attn_output"), out));
}

at::Tensor Decoder::activate(const at::Tensor& x) const {
  switch (config_.activation) {
    case model::Activation::kSilu:
      return at::silu(x);
    case model::Activation::kGeluTanh:
      // By hand: at::gelu took its approximation as an enum before it took a name.
      return 0.5 * x * (1.0 + at::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case model::Activation::kGeluErf:
      return at::gelu(x);
    case model::Activation::kRelu:
      break;
  }
  return at::relu(x);
}

at::Tensor Decoder::feed_forward(std::int64_t index, const at::Tensor& x) {
  const ModelConfig& c = config_;
  at::Tensor in = norm(block(index, "ffn_norm"), x);
  const bool has_gate = weights_.contains(block(index, "ffn_gate.weight"));
  const auto node = input_nodes_.find(block(index, "ffn_up.weight"));
  if (node != input_nodes_.end()) in = through(*node->second, in);
  at::Tensor up = linear(block(index, "ffn_up"), in), gate;
  if (has_gate) {
    gate = linear(block(index, "ffn_gate"), in);
  } else if (c.gated_ffn) {
    gate = up.narrow(-1, 0, c.n_ff), up = up.narrow(-1, c.n_ff, c.n_ff);
  }
  at::Tensor inner;
  if (!gate.defined()) {
    inner = activate(up);
  } else if (c.activation == model::Activation::kSilu) {
    inner = silu_mul(gate, up);
  } else {
    inner = activate(gate) * up;
  }
  const auto down = input_nodes_.find(block(index, "ffn_down.weight"));
  if (down != input_nodes_.end()) inner = through(*down->second, inner);
  return norm(block(index, "post_ffw_norm"), linear(block(index, "ffn_down"), inner));
}

at::Tensor Decoder::layer_inside(std::int64_t index, const at::Tensor& x) {
  const float r = config_.residual_scale;
  const auto add = [r](const at::Tensor& a, const at::Tensor& b) { return r == 1.0f ? a + b : a + b * r; };
  if (config_.parallel_residual) return add(add(x, attention(index, x)), feed_forward(index, x));
  const at::Tensor y = add(x, attention(index, x));
  return add(y, feed_forward(index, y));
}

at::Tensor Decoder::layer(std::int64_t index, const at::Tensor& x) {
  if (!checkpointing_ || !at::GradMode::is_enabled()) return layer_inside(index, x);
  auto& kept = recomputed_[index];
  if (!kept)
    kept = std::make_unique<Recomputed::Layer>(
        [this, index](const at::Tensor& y) { return layer_inside(index, y); });
  // A function's output has a gradient only where an input has one.
  const at::Tensor in = x.requires_grad() ? x : x.detach().requires_grad_(true);
  return Recomputed::apply(in, static_cast<const Recomputed::Layer*>(kept.get()));
}

at::Tensor Decoder::embed(const at::Tensor& tokens) {
  at::Tensor x = at::embedding(effective("token_embd.weight"), tokens);
  if (config_.embedding_scale != 1.0f) x = x * config_.embedding_scale;
  if (config_.position == model::Position::kLearned) {
    x = x + weights_.at("position_embd.weight").narrow(0, 0, tokens.size(1));
  }
  return x;
}

at::Tensor Decoder::final_norm(const at::Tensor& x) { return norm("output_norm", x); }

at::Tensor Decoder::hidden(const at::Tensor& tokens, std::vector<at::Tensor>* layers) {
  at::Tensor x = embed(tokens);
  for (std::int64_t i = 0; i < config_.n_layer; ++i) {
    x = layer(i, x);
    if (layers != nullptr) layers->push_back(x);
  }
  return final_norm(x);
}

std::string Decoder::head_name() const {
  return weights_.contains("output.weight") ? "output.weight" : "token_embd.weight";
}

at::Tensor Decoder::head_weight() { return effective(head_name()); }

at::Tensor Decoder::head_input(const at::Tensor& h) {
  // A tied head's input has a node of its own, under the name that a head would have.
  const auto node = input_nodes_.find("output.weight");
  return node == input_nodes_.end() ? h : through(*node->second, h);
}

at::Tensor Decoder::head(const at::Tensor& h) {
  at::Tensor y = train::linear(head_input(h), head_weight(), {});
  if (config_.logit_scale != 1.0f) y = y * config_.logit_scale;
  if (config_.final_softcap != 0.0f) y = at::tanh(y / config_.final_softcap) * config_.final_softcap;
  return y;
}

}  // namespace narrow::train

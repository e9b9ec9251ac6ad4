#include "runtime/weights.h"

#include <algorithm>
#include <unordered_map>

#include "kernels/dispatch.h"
#include "runtime/int8_parts.h"
#include "runtime/session.h"

namespace narrow::runtime {
namespace {

using model::ModelConfig;
using model::ModelSource;

// Rope factors reach the graph through the config.
bool is_rope_table(std::string_view name) {
  return name.find("rope_freqs") != std::string_view::npos ||
         name.find("rope_factors_") != std::string_view::npos ||
         name.find("attn_rot_embd") != std::string_view::npos;
}

class Binder {
 public:
  Binder(const ModelSource& source, const LoadOptions& options)
      : source_(source), config_(source.config()), options_(options), used_(source.tensors().size(), false) {}

  Result<ModelWeights> bind() {
    NARROW_TRY(check_config());
    NARROW_ASSIGN(int8_, Int8Parts::create(source_));
    NARROW_TRY(check_compute());
    if (options_.part != Part::kLayer) NARROW_TRY(ends());
    if (options_.part == Part::kWhole) {
      for (std::int64_t i = 0; i < config_.n_layer; ++i) NARROW_TRY(layer(i));
      NARROW_TRY(check_all_used());
    } else if (options_.part == Part::kLayer) {
      NARROW_TRY(layer(options_.layer));
    }
    if (options_.compute != Compute::kFloat) pack();
    for (AlignedBuffer<std::byte>& b : int8_->take_storage()) out_.storage.push_back(std::move(b));
    return std::move(out_);
  }

 private:
  Status ends() {
    NARROW_TRY(matrix("token_embd.weight", {config_.n_vocab, config_.n_embd}, out_.embedding));
    if (config_.position == model::Position::kLearned) {
      NARROW_TRY(matrix("position_embd.weight", {config_.n_ctx_train, config_.n_embd}, out_.positions));
    }
    NARROW_TRY(norm("output_norm", config_.n_embd, true, out_.final_norm));
    if (config_.tied_head && !has("output.weight")) {
      out_.head = out_.embedding;
      if (int8_->present()) NARROW_TRY(int8_->attach("output", 0, 1, out_.head));
    } else {
      NARROW_TRY(weight("output.weight", {config_.n_vocab, config_.n_embd}, out_.head));
    }
    return {};
  }

  Status layer(std::int64_t i) {
    const std::string prefix = fmt::format("blk.{}.", i);
    LayerWeights& w = out_.layers.emplace_back();
    NARROW_TRY(attention(prefix, w));
    return feed_forward(prefix, config_.layers[static_cast<std::size_t>(i)].moe, w);
  }

  std::string file() const { return source_.path().string(); }
  bool has(const std::string& name) const { return source_.find(name).has_value(); }

  Status check_config() const {
    const ModelConfig& c = config_;
    const auto positive = [&](std::int64_t value, std::string_view what) -> Status {
      if (value > 0) return {};
      return make_error(ErrorCode::kCorrupt, "{}: {} is {}, but must be positive", file(), what, value);
    };
    NARROW_TRY(positive(c.n_vocab, "vocabulary size"));
    NARROW_TRY(positive(c.n_ctx_train, "context length"));
    NARROW_TRY(positive(c.n_embd, "embedding length"));
    NARROW_TRY(positive(c.n_layer, "layer count"));
    NARROW_TRY(positive(c.n_head, "head count"));
    NARROW_TRY(positive(c.n_head_kv, "key head count"));
    NARROW_TRY(positive(c.head_dim, "head dimension"));
    if (c.n_head % c.n_head_kv != 0) {
      return make_error(ErrorCode::kCorrupt, "{}: {} heads cannot share {} key heads evenly", file(),
                        c.n_head, c.n_head_kv);
    }
    if (static_cast<std::int64_t>(c.layers.size()) != c.n_layer) {
      return make_error(ErrorCode::kCorrupt, "{}: {} layer descriptions for {} layers", file(),
                        c.layers.size(), c.n_layer);
    }
    if (c.position == model::Position::kRope &&
        (c.rope.dims <= 0 || c.rope.dims > c.head_dim || c.rope.dims % 2)) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: {} rotated dimensions do not fit heads of {}; an even number up to it", file(),
                        c.rope.dims, c.head_dim);
    }
    const bool moe = std::any_of(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.moe; });
    if (moe && (c.n_expert <= 0 || c.n_expert_used <= 0 || c.n_expert_used > c.n_expert)) {
      return make_error(ErrorCode::kCorrupt, "{}: {} of {} experts used; 1 to all are possible", file(),
                        c.n_expert_used, c.n_expert);
    }
    return {};
  }

  // Finds a tensor of exactly this shape and counts its bytes.
  Result<std::size_t> require(const std::string& name, const Shape& shape) {
    const std::optional<std::size_t> index = source_.find(name);
    if (!index) {
      return make_error(ErrorCode::kNotFound, "{}: tensor '{}' {} is missing", file(), name, shape.text());
    }
    const TensorInfo& info = source_.tensors()[*index];
    if (info.shape != shape) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is {}, but the model's settings ask for {}",
                        file(), name, info.shape.text(), shape.text());
    }
    if (format_info(info.format).decode == nullptr && !(int8_->present() && info.format == Format::kI8)) {
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' is stored as {}, which holds no weights",
                        file(), name, format_info(info.format).name);
    }
    used_[*index] = true;
    out_.bytes += info.bytes();
    out_.any_quantized = out_.any_quantized || format_info(info.format).kind == FormatKind::kQuantized;
    return *index;
  }

  Status matrix(const std::string& name, const Shape& shape, TensorView& out) {
    NARROW_ASSIGN(const std::size_t index, require(name, shape));
    out = source_.view(index);
    if (!out.empty()) {
      mapped_[out.data] = index;
      return {};
    }
    const TensorInfo& info = source_.tensors()[index];
    AlignedBuffer<std::byte>& buffer = out_.storage.emplace_back(info.bytes());
    NARROW_TRY(source_.read_raw(index, 0, info.shape.rows(), buffer.data()));
    out = {info.format, info.shape, buffer.data()};
    return {};
  }

  Status weight(const std::string& name, const Shape& shape, ops::Weight& out) {
    NARROW_TRY(matrix(name, shape, out.stored));
    return attach(name, 0, 1, out);
  }

  Status attach(const std::string& name, std::int64_t expert, std::int64_t n_expert, ops::Weight& w) {
    constexpr std::string_view kSuffix = ".weight";
    if (!int8_->present()) return {};
    return int8_->attach(name.substr(0, name.size() - kSuffix.size()), expert, n_expert, w);
  }

  // Weights that meet the same input.
  Status same_input(const std::string& a, const ops::Weight& weight_a, const std::string& b,
                    const ops::Weight& weight_b) const {
    return int8_->present() ? check_same_input(file(), a, weight_a, b, weight_b) : Status();
  }

  // [n_expert, n, k] as one matrix per expert.
  Status experts(const std::string& name, std::int64_t n, std::int64_t k, std::vector<ops::Weight>& out) {
    TensorView all;
    NARROW_TRY(matrix(name, {config_.n_expert, n, k}, all));
    for (std::int64_t e = 0; e < config_.n_expert; ++e) {
      out.push_back(TensorView{all.format, Shape{n, k}, all.row(e * n)});
      NARROW_TRY(attach(name, e, config_.n_expert, out.back()));
    }
    // The tensor is given back after its last expert.
    if (const auto it = mapped_.find(all.data); it != mapped_.end()) {
      const std::size_t index = it->second;
      mapped_.erase(it);
      mapped_[out.back().stored.data] = index;
    }
    return {};
  }

  void pack() {
    std::vector<ops::Weight*> weights;
    const auto add = [&](ops::Weight& w) {
      if (!w.empty()) weights.push_back(&w);
    };
    // Routers stay as they are: which experts run is decided in fp32.
    for (LayerWeights& layer : out_.layers) {
      for (Linear* l :
           {&layer.qkv, &layer.q, &layer.k, &layer.v, &layer.attn_out, &layer.gate, &layer.up, &layer.down}) {
        add(l->weight);
      }
      for (auto* list : {&layer.gate_experts, &layer.up_experts, &layer.down_experts}) {
        for (ops::Weight& w : *list) add(w);
      }
    }
    add(out_.head);
    ops::PackAs as;
    as.simulate = options_.compute == Compute::kSimulate;
    if (int8_->present()) {
      as.dense = int8_->settings().weight_bits == 8;
    } else {
      as.dense = options_.compute != Compute::kStored;
    }
    if (options_.compute == Compute::kW8A8Asymmetric) {
      for (ops::Weight* w : weights) w->scheme.asymmetric = true;
    }
    const auto head = mapped_.find(out_.head.stored.data);
    const bool tied = out_.head.stored.data == out_.embedding.data;
    if (tied && head != mapped_.end()) out_.twice_mapped = head->second;
    out_.packed.pack(weights, as, [&](std::size_t i) {
      const auto it = mapped_.find(weights[i]->stored.data);
      if (it != mapped_.end()) source_.drop(it->second);
    });
    if (!out_.head.packed()) out_.twice_mapped.reset();
  }

  Status vector(const std::string& name, std::int64_t n, bool required, std::vector<float>& out) {
    if (!required && !has(name)) return {};
    NARROW_ASSIGN(const std::size_t index, require(name, {n}));
    out.resize(static_cast<std::size_t>(n));
    return source_.read_f32(index, 0, 1, out.data());
  }

  Status norm(const std::string& stem, std::int64_t n, bool required, Norm& out) {
    NARROW_TRY(vector(stem + ".weight", n, required, out.gain));
    if (config_.norm == model::NormKind::kLayer) return vector(stem + ".bias", n, false, out.bias);
    return {};
  }

  Status linear(const std::string& stem, std::int64_t n, std::int64_t k, Linear& out) {
    NARROW_TRY(weight(stem + ".weight", {n, k}, out.weight));
    return vector(stem + ".bias", n, false, out.bias);
  }

  Status attention(const std::string& prefix, LayerWeights& layer) {
    const ModelConfig& c = config_;
    const std::int64_t n_q = c.n_head * c.head_dim, n_kv = c.n_head_kv * c.head_dim;
    // A layer normalises what goes in, or what comes out (olmo2), or both (gemma2).
    NARROW_TRY(norm(prefix + "post_attention_norm", c.n_embd, false, layer.post_attn_norm));
    NARROW_TRY(norm(prefix + "attn_norm", c.n_embd, !layer.post_attn_norm.present(), layer.attn_norm));
    if (has(prefix + "attn_qkv.weight")) {
      NARROW_TRY(linear(prefix + "attn_qkv", n_q + 2 * n_kv, c.n_embd, layer.qkv));
    } else {
      NARROW_TRY(linear(prefix + "attn_q", n_q, c.n_embd, layer.q));
      NARROW_TRY(linear(prefix + "attn_k", n_kv, c.n_embd, layer.k));
      NARROW_TRY(linear(prefix + "attn_v", n_kv, c.n_embd, layer.v));
    }
    NARROW_TRY(same_input(prefix + "attn_q", layer.q.weight, prefix + "attn_k", layer.k.weight));
    NARROW_TRY(same_input(prefix + "attn_q", layer.q.weight, prefix + "attn_v", layer.v.weight));
    NARROW_TRY(linear(prefix + "attn_output", c.n_embd, n_q, layer.attn_out));
    if (c.qk_norm == model::QkNorm::kNone) return {};
    const bool per_head = c.qk_norm == model::QkNorm::kPerHead;
    NARROW_TRY(vector(prefix + "attn_q_norm.weight", per_head ? c.head_dim : n_q, true, layer.q_norm.gain));
    return vector(prefix + "attn_k_norm.weight", per_head ? c.head_dim : n_kv, true, layer.k_norm.gain);
  }

  Status feed_forward(const std::string& prefix, bool moe, LayerWeights& layer) {
    const ModelConfig& c = config_;
    NARROW_TRY(norm(prefix + "post_ffw_norm", c.n_embd, false, layer.post_ffn_norm));
    NARROW_TRY(norm(prefix + "ffn_norm", c.n_embd, !layer.post_ffn_norm.present(), layer.ffn_norm));
    if (moe) {
      NARROW_TRY(matrix(prefix + "ffn_gate_inp.weight", {c.n_expert, c.n_embd}, layer.router.stored));
      NARROW_TRY(experts(prefix + "ffn_gate_exps.weight", c.n_ff_expert, c.n_embd, layer.gate_experts));
      NARROW_TRY(experts(prefix + "ffn_up_exps.weight", c.n_ff_expert, c.n_embd, layer.up_experts));
      NARROW_TRY(same_input(prefix + "ffn_gate_exps", layer.gate_experts.front(), prefix + "ffn_up_exps",
                            layer.up_experts.front()));
      return experts(prefix + "ffn_down_exps.weight", c.n_embd, c.n_ff_expert, layer.down_experts);
    }
    const bool fused = c.gated_ffn && !has(prefix + "ffn_gate.weight");
    if (c.gated_ffn && !fused) NARROW_TRY(linear(prefix + "ffn_gate", c.n_ff, c.n_embd, layer.gate));
    NARROW_TRY(linear(prefix + "ffn_up", fused ? 2 * c.n_ff : c.n_ff, c.n_embd, layer.up));
    if (layer.gate.present()) {
      NARROW_TRY(same_input(prefix + "ffn_gate", layer.gate.weight, prefix + "ffn_up", layer.up.weight));
    }
    return linear(prefix + "ffn_down", c.n_embd, c.n_ff, layer.down);
  }

  // What an int8 file can compute.
  Status check_compute() const {
    if (!int8_->present()) return {};
    if (options_.compute == Compute::kFloat) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: is made for int8 products; fp32 ones need the model it was made from", file());
    }
    const bool zero_point = options_.compute == Compute::kW8A8Asymmetric;
    if (zero_point && (int8_->settings().static_scales || int8_->settings().weight_bits != 8)) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: zero points per token need a file of 8-bit weights with dynamic scales", file());
    }
    return {};
  }

  Status check_all_used() {
    for (const std::size_t i : int8_->used()) used_[i] = true;
    for (std::size_t i = 0; i < used_.size(); ++i) {
      const TensorInfo& info = source_.tensors()[i];
      if (used_[i] || is_rope_table(info.name)) continue;
      return make_error(
          ErrorCode::kUnsupported,
          "{}: tensor '{}' {} has no place in a {} model; the file needs a newer narrow or another "
          "architecture",
          file(), info.name, info.shape.text(), config_.arch);
    }
    return {};
  }

  const ModelSource& source_;
  const ModelConfig& config_;
  LoadOptions options_;
  std::vector<bool> used_;
  std::optional<Int8Parts> int8_;
  std::unordered_map<const std::byte*, std::size_t> mapped_;  // tensors by where they start
  ModelWeights out_;
};

// What the graph of a part looks like.
ModelConfig part_config(const ModelConfig& whole, const LoadOptions& options) {
  ModelConfig c = whole;
  if (options.part == Part::kEnds) c.layers.clear();
  if (options.part == Part::kLayer) c.layers = {whole.layers[static_cast<std::size_t>(options.layer)]};
  c.n_layer = static_cast<std::int64_t>(c.layers.size());
  return c;
}

class BoundModel final : public LoadedModel {
 public:
  BoundModel(std::shared_ptr<const ModelSource> source, ModelWeights weights, const LoadOptions& options)
      : source_(std::move(source)),
        config_(part_config(source_->config(), options)),
        weights_(std::move(weights)) {}
  const ModelConfig& config() const override { return config_; }
  std::uint64_t weight_bytes() const override { return weights_.bytes; }
  const ModelWeights& weights() const override { return weights_; }
  void release_embedding() const override {
    if (weights_.twice_mapped) source_->drop(*weights_.twice_mapped);
  }

 private:
  std::shared_ptr<const ModelSource> source_;  // keeps the mapped files alive
  ModelConfig config_;
  ModelWeights weights_;
};

}  // namespace

Result<ModelWeights> bind_weights(const ModelSource& source, const LoadOptions& options) {
  return Binder(source, options).bind();
}

Result<std::shared_ptr<const LoadedModel>> LoadedModel::load(std::shared_ptr<const ModelSource> source,
                                                             const LoadOptions& options) {
  if (!kernels::selected_kernels().ok()) return kernels::selected_kernels().error();
  if (options.part == Part::kLayer && (options.layer < 0 || options.layer >= source->config().n_layer)) {
    return make_error(ErrorCode::kInvalidArgument, "{}: layer {} of {}", source->path().string(),
                      options.layer, source->config().n_layer);
  }
  NARROW_ASSIGN(ModelWeights weights, bind_weights(*source, options));
  return std::shared_ptr<const LoadedModel>(
      std::make_shared<BoundModel>(std::move(source), std::move(weights), options));
}

}  // namespace narrow::runtime

// Tensor maps: canonical names and shapes against Hugging Face's.
#include "model/arch/common.h"

namespace narrow::model {

Shape hf_shape(const TensorRule& rule) {
  const auto& d = rule.shape.dims();
  if (rule.layout == Layout::kTranspose) return Shape({d[1], d[0]});
  if (rule.layout == Layout::kStack) return Shape({d[1], d[2]});
  return rule.shape;
}

void MapBuilder::add(std::string name, Shape shape, std::string hf, Layout layout, std::int64_t heads) {
  TensorRule r;
  r.name = std::move(name);
  r.shape = std::move(shape);
  r.layout = layout;
  r.hf = {std::move(hf)};
  r.heads = heads;
  rules_.push_back(std::move(r));
}

void MapBuilder::linear(const std::string& name, const std::string& hf, std::int64_t n_out, std::int64_t n_in,
                        bool bias, Layout layout, std::int64_t heads) {
  add(name + ".weight", Shape({n_out, n_in}), hf + ".weight", layout, heads);
  if (bias) {
    add(name + ".bias", Shape({n_out}), hf + ".bias", layout == Layout::kTranspose ? Layout::kCopy : layout,
        heads);
  }
}

void MapBuilder::norm(const std::string& name, const std::string& hf, std::int64_t n, Layout layout) {
  add(name + ".weight", Shape({n}), hf + ".weight", layout);
  if (config_.norm == NormKind::kLayer) add(name + ".bias", Shape({n}), hf + ".bias", layout);
}

void MapBuilder::stack(const std::string& name, const std::vector<std::string>& hf, std::int64_t n_out,
                       std::int64_t n_in) {
  TensorRule r;
  r.name = name + ".weight";
  r.shape = Shape({static_cast<std::int64_t>(hf.size()), n_out, n_in});
  r.layout = Layout::kStack;
  r.hf = hf;
  rules_.push_back(std::move(r));
}

void MapBuilder::embeddings(const std::string& hf_embedding) {
  add("token_embd.weight", Shape({config_.n_vocab, config_.n_embd}), hf_embedding);
}

void MapBuilder::rope_factors() {
  const auto values = [&](const char* name, const std::vector<float>& v) {
    if (v.empty()) return;
    TensorRule r;
    r.name = name;
    r.shape = Shape({static_cast<std::int64_t>(v.size())});
    r.layout = Layout::kValues;
    r.values = v;
    rules_.push_back(std::move(r));
  };
  values("rope_freqs.weight", config_.rope.factors);
  values("rope_factors_long.weight", config_.rope.factors_long);
  values("rope_factors_short.weight", config_.rope.factors_short);
}

void MapBuilder::head(const std::string& hf_norm, const std::string& hf_head, Layout norm_layout) {
  norm("output_norm", hf_norm, config_.n_embd, norm_layout);
  if (!config_.tied_head) add("output.weight", Shape({config_.n_vocab, config_.n_embd}), hf_head);
}

std::vector<TensorRule> decoder_tensors(const ModelConfig& c, const DecoderNames& names) {
  MapBuilder b(c);
  b.embeddings("@embed_tokens.weight");
  b.rope_factors();
  const std::int64_t n_q = c.n_head * c.head_dim, n_kv = c.n_head_kv * c.head_dim;
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    const std::string g = fmt::format("blk.{}.", i), h = fmt::format("@layers.{}.", i);
    for (const auto& [gguf, hf] : names.norms) {
      b.norm(g + std::string(gguf), h + std::string(hf), c.n_embd, names.norm_layout);
    }
    b.linear(g + "attn_q", h + "self_attn.q_proj", n_q, c.n_embd, c.qkv_bias, names.qk_layout, c.n_head);
    b.linear(g + "attn_k", h + "self_attn.k_proj", n_kv, c.n_embd, c.qkv_bias, names.qk_layout, c.n_head_kv);
    b.linear(g + "attn_v", h + "self_attn.v_proj", n_kv, c.n_embd, c.qkv_bias);
    b.linear(g + "attn_output", h + "self_attn.o_proj", c.n_embd, n_q, c.out_bias);
    if (c.qk_norm != QkNorm::kNone) {
      const bool full = c.qk_norm == QkNorm::kFull;
      b.norm(g + "attn_q_norm", h + "self_attn.q_norm", full ? n_q : c.head_dim, names.norm_layout);
      b.norm(g + "attn_k_norm", h + "self_attn.k_norm", full ? n_kv : c.head_dim, names.norm_layout);
    }
    if (!c.layers[static_cast<std::size_t>(i)].moe) {
      b.linear(g + "ffn_gate", h + "mlp.gate_proj", c.n_ff, c.n_embd, c.ffn_bias);
      b.linear(g + "ffn_up", h + "mlp.up_proj", c.n_ff, c.n_embd, c.ffn_bias);
      b.linear(g + "ffn_down", h + "mlp.down_proj", c.n_embd, c.n_ff, c.ffn_bias);
      continue;
    }
    const std::string moe = h + std::string(names.moe);
    const auto experts = [&](std::string_view part) {
      std::vector<std::string> hf;
      for (std::int64_t e = 0; e < c.n_expert; ++e)
        hf.push_back(fmt::format("{}.experts.{}.{}.weight", moe, e, part));
      return hf;
    };
    b.linear(g + "ffn_gate_inp", moe + ".gate", c.n_expert, c.n_embd, false);
    b.stack(g + "ffn_gate_exps", experts(names.gate), c.n_ff_expert, c.n_embd);
    b.stack(g + "ffn_up_exps", experts(names.up), c.n_ff_expert, c.n_embd);
    b.stack(g + "ffn_down_exps", experts(names.down), c.n_embd, c.n_ff_expert);
  }
  b.head("@norm", "lm_head.weight", names.norm_layout);
  return b.take();
}

}  // namespace narrow::model

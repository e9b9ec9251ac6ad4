// Phi-3, Phi-3.5 and Phi-4: q, k and v in one matrix, gate and up in another (GGUF's ffn_up holds both, gate
// first).
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void phi3_traits(ModelConfig&) {}

void phi3_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.n_ctx = 4096, .norm_eps = 1e-5}, c);
  read_hf_sliding(f, arch, c);
  read_hf_activation(f, {"hidden_act"}, c);
}

void phi3_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j.erase("attention_bias");
  j.erase("head_dim");
  j["sliding_window"] = c.sliding_window > 0 ? Json(c.sliding_window) : Json(nullptr);
  if (c.rope.dims != c.head_dim)
    j["partial_rotary_factor"] = static_cast<double>(c.rope.dims) / static_cast<double>(c.head_dim);
}

std::vector<TensorRule> phi3_map(const ModelConfig& c) {
  MapBuilder b(c);
  b.embeddings("@embed_tokens.weight");
  b.rope_factors();
  const std::int64_t n_q = c.n_head * c.head_dim, n_kv = c.n_head_kv * c.head_dim;
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    const std::string g = fmt::format("blk.{}.", i), h = fmt::format("@layers.{}.", i);
    b.norm(g + "attn_norm", h + "input_layernorm", c.n_embd);
    b.linear(g + "attn_qkv", h + "self_attn.qkv_proj", n_q + 2 * n_kv, c.n_embd, false);
    b.linear(g + "attn_output", h + "self_attn.o_proj", c.n_embd, n_q, false);
    b.norm(g + "ffn_norm", h + "post_attention_layernorm", c.n_embd);
    b.linear(g + "ffn_up", h + "mlp.gate_up_proj", 2 * c.n_ff, c.n_embd, false);
    b.linear(g + "ffn_down", h + "mlp.down_proj", c.n_embd, c.n_ff, false);
  }
  b.head("@norm", "lm_head.weight");
  return b.take();
}

}  // namespace

const Arch& phi3_arch() {
  static const Arch arch = {.name = "phi3",
                            .model_types = {"phi3"},
                            .architectures = {"Phi3ForCausalLM"},
                            .traits = phi3_traits,
                            .read_hf = phi3_read_hf,
                            .write_hf = phi3_write_hf,
                            .tensor_map = phi3_map};
  return arch;
}

}  // namespace narrow::model

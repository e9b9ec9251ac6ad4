// GPT-NeoX and Pythia: parallel residual, LayerNorm, rope on part of each head. q, k and v of a head lie
// together in config.json's matrix; GGUF has all q, then all k, then all v. llama.cpp computes the tanh form
// of GELU here, the original (and narrow) the exact one.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void gpt_neox_traits(ModelConfig& c) {
  c.norm = NormKind::kLayer;
  c.activation = Activation::kGeluErf;
  c.gated_ffn = false;
  c.parallel_residual = true;
  c.qkv_bias = c.out_bias = c.ffn_bias = true;
}

void gpt_neox_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  c.n_embd = f.integer({"hidden_size"}, 1, kMaxWidth);
  c.n_layer = f.integer({"num_hidden_layers"}, 1, kMaxLayers);
  c.n_head = c.n_head_kv = f.integer({"num_attention_heads"}, 1, kMaxHeads);
  c.n_ff = f.integer({"intermediate_size"}, 1, kMaxFfn);
  c.n_vocab = f.integer({"vocab_size"}, 1, kMaxVocab);
  c.n_ctx_train = f.integer({"max_position_embeddings"}, 1, kMaxContext, 2048);
  c.norm_eps = static_cast<float>(f.number({"layer_norm_eps"}, 0.0, 1.0, 1e-5));
  c.tied_head = f.boolean("tie_word_embeddings", false);
  c.parallel_residual = f.boolean("use_parallel_residual", true);
  c.qkv_bias = c.out_bias = f.boolean("attention_bias", true);
  read_hf_activation(f, {"hidden_act"}, c);
  if (!f.ok()) return;
  if (c.n_embd % c.n_head != 0) {
    f.reject("hidden_size", fmt::format("it is no multiple of the {} heads", c.n_head));
    return;
  }
  c.head_dim = c.n_embd / c.n_head;
  c.layers.assign(static_cast<std::size_t>(c.n_layer), LayerConfig{});
  read_hf_rope(f, arch, c);
}

void gpt_neox_write_hf(const ModelConfig& c, Json& j) {
  j["hidden_size"] = c.n_embd;
  j["num_hidden_layers"] = c.n_layer;
  j["num_attention_heads"] = c.n_head;
  j["intermediate_size"] = c.n_ff;
  j["vocab_size"] = c.n_vocab;
  j["max_position_embeddings"] = c.n_ctx_train;
  j["layer_norm_eps"] = shortest(c.norm_eps);
  j["hidden_act"] = hf_activation_name(c.activation);
  j["tie_word_embeddings"] = c.tied_head;
  j["use_parallel_residual"] = c.parallel_residual;
  j["attention_bias"] = c.qkv_bias;
  j["rotary_pct"] = static_cast<double>(c.rope.dims) / static_cast<double>(c.head_dim);
  write_hf_rope(c, j, "rotary_emb_base");
  j["rope_parameters"]["partial_rotary_factor"] = j["rotary_pct"];
}

std::vector<TensorRule> gpt_neox_map(const ModelConfig& c) {
  MapBuilder b(c);
  b.embeddings("@embed_in.weight");
  b.rope_factors();
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    const std::string g = fmt::format("blk.{}.", i), h = fmt::format("@layers.{}.", i);
    b.norm(g + "attn_norm", h + "input_layernorm", c.n_embd);
    b.linear(g + "attn_qkv", h + "attention.query_key_value", 3 * c.n_embd, c.n_embd, c.qkv_bias,
             Layout::kFusedHeads, c.n_head);
    b.linear(g + "attn_output", h + "attention.dense", c.n_embd, c.n_embd, c.out_bias);
    b.norm(g + "ffn_norm", h + "post_attention_layernorm", c.n_embd);
    b.linear(g + "ffn_up", h + "mlp.dense_h_to_4h", c.n_ff, c.n_embd, true);
    b.linear(g + "ffn_down", h + "mlp.dense_4h_to_h", c.n_embd, c.n_ff, true);
  }
  b.head("@final_layer_norm", "embed_out.weight");
  return b.take();
}

}  // namespace

const Arch& gpt_neox_arch() {
  static const Arch arch = {
      .name = "gptneox",
      .model_types = {"gpt_neox"},
      .architectures = {"GPTNeoXForCausalLM"},
      .prefixes = {"gpt_neox.", ""},
      .embedding = "embed_in.weight",
      .ignored_suffixes = {".attention.bias", ".attention.masked_bias", ".attention.rotary_emb.inv_freq"},
      .needs_output = true,
      .default_partial = 0.25,
      .traits = gpt_neox_traits,
      .read_hf = gpt_neox_read_hf,
      .write_hf = gpt_neox_write_hf,
      .tensor_map = gpt_neox_map};
  return arch;
}

}  // namespace narrow::model

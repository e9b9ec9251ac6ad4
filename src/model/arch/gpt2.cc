// GPT-2: learned positions, LayerNorm, one matrix for q, k and v; weights are Conv1D, that is stored
// transposed.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void gpt2_traits(ModelConfig& c) {
  c.norm = NormKind::kLayer;
  c.position = Position::kLearned;
  c.activation = Activation::kGeluTanh;
  c.gated_ffn = false;
  c.qkv_bias = c.out_bias = c.ffn_bias = true;
}

void gpt2_read_hf(HfFields& f, const Arch&, ModelConfig& c) {
  c.n_embd = f.integer({"n_embd", "hidden_size"}, 1, kMaxWidth);
  c.n_layer = f.integer({"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  c.n_head = c.n_head_kv = f.integer({"n_head", "num_attention_heads"}, 1, kMaxHeads);
  c.n_ff = f.integer({"n_inner"}, 1, kMaxFfn, 4 * c.n_embd);
  c.n_vocab = f.integer({"vocab_size"}, 1, kMaxVocab);
  c.n_ctx_train = f.integer({"n_positions", "n_ctx"}, 1, kMaxContext, 1024);
  c.norm_eps = static_cast<float>(f.number({"layer_norm_epsilon"}, 0.0, 1.0, 1e-5));
  c.tied_head = f.boolean("tie_word_embeddings", true);
  read_hf_activation(f, {"activation_function"}, c);
  if (!f.ok()) return;
  if (c.n_embd % c.n_head != 0) {
    f.reject("n_embd", fmt::format("it is no multiple of the {} heads", c.n_head));
    return;
  }
  c.head_dim = c.n_embd / c.n_head;
  c.layers.assign(static_cast<std::size_t>(c.n_layer), LayerConfig{.rope = false});
  if (!f.boolean("scale_attn_weights", true)) c.attn_scale = 1.0f;
  if (f.boolean("scale_attn_by_inverse_layer_idx", false)) {
    f.reject("scale_attn_by_inverse_layer_idx", "not supported", ErrorCode::kUnsupported);
  }
}

void gpt2_read_gguf(GgufFields&, ModelConfig& c) {
  for (LayerConfig& layer : c.layers) layer.rope = false;
}

void gpt2_write_hf(const ModelConfig& c, Json& j) {
  j["n_embd"] = c.n_embd;
  j["n_layer"] = c.n_layer;
  j["n_head"] = c.n_head;
  j["n_inner"] = c.n_ff;
  j["vocab_size"] = c.n_vocab;
  j["n_positions"] = c.n_ctx_train;
  j["layer_norm_epsilon"] = shortest(c.norm_eps);
  j["activation_function"] = "gelu_new";
  j["tie_word_embeddings"] = c.tied_head;
  j["scale_attn_weights"] = c.attn_scale != 1.0f;
}

std::vector<TensorRule> gpt2_map(const ModelConfig& c) {
  MapBuilder b(c);
  b.embeddings("@wte.weight");
  b.add("position_embd.weight", Shape({c.n_ctx_train, c.n_embd}), "@wpe.weight");
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    const std::string g = fmt::format("blk.{}.", i), h = fmt::format("@h.{}.", i);
    b.norm(g + "attn_norm", h + "ln_1", c.n_embd);
    b.linear(g + "attn_qkv", h + "attn.c_attn", 3 * c.n_embd, c.n_embd, true, Layout::kTranspose);
    b.linear(g + "attn_output", h + "attn.c_proj", c.n_embd, c.n_embd, true, Layout::kTranspose);
    b.norm(g + "ffn_norm", h + "ln_2", c.n_embd);
    b.linear(g + "ffn_up", h + "mlp.c_fc", c.n_ff, c.n_embd, true, Layout::kTranspose);
    b.linear(g + "ffn_down", h + "mlp.c_proj", c.n_embd, c.n_ff, true, Layout::kTranspose);
  }
  b.head("@ln_f", "lm_head.weight");
  return b.take();
}

}  // namespace

const Arch& gpt2_arch() {
  static const Arch arch = {.name = "gpt2",
                            .model_types = {"gpt2"},
                            .architectures = {"GPT2LMHeadModel"},
                            .prefixes = {"transformer.", ""},
                            .embedding = "wte.weight",
                            .ignored_suffixes = {".attn.bias", ".attn.masked_bias"},
                            .traits = gpt2_traits,
                            .read_hf = gpt2_read_hf,
                            .read_gguf = gpt2_read_gguf,
                            .write_hf = gpt2_write_hf,
                            .tensor_map = gpt2_map};
  return arch;
}

}  // namespace narrow::model

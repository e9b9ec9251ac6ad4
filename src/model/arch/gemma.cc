#include "model/arch/gemma.h"

#include <cmath>

namespace narrow::model {
namespace {

// 1 / sqrt(scalar), or 0 where that is the usual 1 / sqrt(head_dim).
float scale_from(double scalar, const ModelConfig& c) {
  if (scalar == static_cast<double>(c.head_dim)) return 0.0f;
  return static_cast<float>(1.0 / std::sqrt(scalar));
}

float default_scale(const ModelConfig& c, std::int64_t layers_of_27b) {
  return scale_from(static_cast<double>(c.n_layer == layers_of_27b ? c.n_embd / c.n_head : c.head_dim), c);
}

}  // namespace

std::vector<TensorRule> gemma_tensors(const ModelConfig& c) {
  return decoder_tensors(c, {.norms = {{"attn_norm", "input_layernorm"},
                                       {"post_attention_norm", "post_attention_layernorm"},
                                       {"ffn_norm", "pre_feedforward_layernorm"},
                                       {"post_ffw_norm", "post_feedforward_layernorm"}},
                             .norm_layout = Layout::kAddOne});
}

void gemma_traits(ModelConfig& c) { c.activation = Activation::kGeluTanh; }

void gemma_read_scales(HfFields& f, ModelConfig& c) {
  c.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(c.n_embd)));
  c.attn_scale = scale_from(f.number({"query_pre_attn_scalar"}, 1e-3, 1e6, 256.0), c);
  c.qkv_bias = c.out_bias = f.boolean("attention_bias", false);
}

void gemma_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j.erase("hidden_act");
  j["hidden_activation"] = hf_activation_name(c.activation);
  j["attn_logit_softcapping"] = c.attn_softcap > 0.0f ? Json(shortest(c.attn_softcap)) : Json(nullptr);
  j["final_logit_softcapping"] = c.final_softcap > 0.0f ? Json(shortest(c.final_softcap)) : Json(nullptr);
  const double s = static_cast<double>(c.attn_scale);
  // A whole number in every published model; the stored scale is rounded.
  j["query_pre_attn_scalar"] =
      c.attn_scale == 0.0f ? c.head_dim : static_cast<std::int64_t>(std::llround(1.0 / (s * s)));
  write_hf_layer_types(c, j);
}

void gemma_read_gguf_scales(GgufFields& f, std::int64_t layers_of_27b, ModelConfig& c) {
  c.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(c.n_embd)));
  if (!f.has("attention.scale")) c.attn_scale = default_scale(c, layers_of_27b);
}

void gemma_write_gguf_scales(const ModelConfig& c, std::int64_t layers_of_27b, io::gguf::Metadata& m) {
  m.erase(c.arch + ".embedding_scale");  // built into the graph
  m.erase(c.arch + ".attention.scale");
  if (c.attn_scale != default_scale(c, layers_of_27b)) {
    const float scale = c.attn_scale != 0.0f
                            ? c.attn_scale
                            : static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
    m.set_f32(c.arch + ".attention.scale", scale);
  }
}

}  // namespace narrow::model

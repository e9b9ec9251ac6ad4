// Granite 3: Llama with four multipliers. config.json divides the logits, GGUF keeps that divisor.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void granite_traits(ModelConfig& c) { c.rope.style = RopeStyle::kInterleaved; }

void granite_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {}, c);
  read_hf_biases(f, c);
  read_hf_activation(f, {"hidden_act"}, c);
  c.embedding_scale = static_cast<float>(f.number({"embedding_multiplier"}, 1e-6, 1e6, 1.0));
  c.residual_scale = static_cast<float>(f.number({"residual_multiplier"}, 1e-6, 1e6, 1.0));
  c.attn_scale = static_cast<float>(f.number({"attention_multiplier"}, 1e-6, 1e6, 1.0));
  c.logit_scale = static_cast<float>(1.0 / f.number({"logits_scaling"}, 1e-6, 1e6, 1.0));
}

void granite_read_gguf(GgufFields& f, ModelConfig& c) {
  c.logit_scale = static_cast<float>(1.0 / f.number("logit_scale", 1e-6, 1e6));
}

double logits_scaling(const ModelConfig& c) { return 1.0 / static_cast<double>(c.logit_scale); }

void granite_write_gguf(const ModelConfig& c, io::gguf::Metadata& m) {
  m.set_f32("granite.attention.scale", c.attn_scale);
  m.set_f32("granite.embedding_scale", c.embedding_scale);
  m.set_f32("granite.residual_scale", c.residual_scale);
  m.set_f32("granite.logit_scale", static_cast<float>(logits_scaling(c)));
}

void granite_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j["mlp_bias"] = c.ffn_bias;
  j["embedding_multiplier"] = shortest(c.embedding_scale);
  j["residual_multiplier"] = shortest(c.residual_scale);
  j["attention_multiplier"] = shortest(c.attn_scale);
  j["logits_scaling"] = shortest(static_cast<float>(logits_scaling(c)));
}

std::vector<TensorRule> granite_map(const ModelConfig& c) {
  return decoder_tensors(c, {.qk_layout = Layout::kRopePairs});
}

}  // namespace

const Arch& granite_arch() {
  static const Arch arch = {.name = "granite",
                            .model_types = {"granite"},
                            .architectures = {"GraniteForCausalLM"},
                            .traits = granite_traits,
                            .read_hf = granite_read_hf,
                            .read_gguf = granite_read_gguf,
                            .write_gguf = granite_write_gguf,
                            .write_hf = granite_write_hf,
                            .tensor_map = granite_map};
  return arch;
}

}  // namespace narrow::model

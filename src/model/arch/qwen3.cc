// Qwen3, dense: a norm on each head of q and k.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void qwen3_traits(ModelConfig& c) { c.qk_norm = QkNorm::kPerHead; }

void qwen3_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.head_dim = 128, .n_ctx = 32768}, c);
  read_hf_biases(f, c);
  c.ffn_bias = false;
  read_hf_optional_sliding(f, arch, c);
  read_hf_activation(f, {"hidden_act"}, c);
}

void qwen3_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  write_hf_layer_types(c, j);
  j["use_sliding_window"] = c.sliding_window > 0;
}

std::vector<TensorRule> qwen3_map(const ModelConfig& c) { return decoder_tensors(c); }

}  // namespace

const Arch& qwen3_arch() {
  static const Arch arch = {.name = "qwen3",
                            .model_types = {"qwen3"},
                            .architectures = {"Qwen3ForCausalLM"},
                            .traits = qwen3_traits,
                            .read_hf = qwen3_read_hf,
                            .write_hf = qwen3_write_hf,
                            .tensor_map = qwen3_map};
  return arch;
}

}  // namespace narrow::model

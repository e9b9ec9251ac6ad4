// Qwen3, dense: a norm on each head of q and k.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void traits(ModelConfig& c) { c.qk_norm = QkNorm::kPerHead; }

void read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.head_dim = 128, .n_ctx = 32768}, c);
  read_hf_biases(f, c);
  c.ffn_bias = false;
  read_hf_optional_sliding(f, arch, c);
  read_hf_activation(f, {"hidden_act"}, c);
}

void write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  write_hf_layer_types(c, j);
  j["use_sliding_window"] = c.sliding_window > 0;
}

std::vector<TensorRule> map(const ModelConfig& c) { return decoder_tensors(c); }

}  // namespace

const Arch& qwen3_arch() {
  static const Arch arch = {.name = "qwen3",
                            .model_types = {"qwen3"},
                            .architectures = {"Qwen3ForCausalLM"},
                            .traits = traits,
                            .read_hf = read_hf,
                            .write_hf = write_hf,
                            .tensor_map = map};
  return arch;
}

}  // namespace narrow::model

// Qwen2 and Qwen2.5: biases on q, k and v only.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void qwen2_traits(ModelConfig& c) { c.qkv_bias = true; }

void qwen2_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.n_ctx = 32768}, c);
  read_hf_optional_sliding(f, arch, c);
  read_hf_activation(f, {"hidden_act"}, c);
}

void qwen2_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j.erase("attention_bias");
  write_hf_layer_types(c, j);
  j["use_sliding_window"] = c.sliding_window > 0;
}

std::vector<TensorRule> qwen2_map(const ModelConfig& c) { return decoder_tensors(c); }

}  // namespace

const Arch& qwen2_arch() {
  static const Arch arch = {.name = "qwen2",
                            .model_types = {"qwen2"},
                            .architectures = {"Qwen2ForCausalLM"},
                            .traits = qwen2_traits,
                            .read_hf = qwen2_read_hf,
                            .write_hf = qwen2_write_hf,
                            .tensor_map = qwen2_map};
  return arch;
}

}  // namespace narrow::model

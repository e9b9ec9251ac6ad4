// OLMo 2: norms after attention and feed-forward only, and over the whole q and k projections.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void olmo2_traits(ModelConfig& c) { c.qk_norm = QkNorm::kFull; }

void olmo2_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.norm_eps = 1e-5}, c);
  read_hf_biases(f, c);
  c.ffn_bias = false;
  read_hf_activation(f, {"hidden_act"}, c);
}

std::vector<TensorRule> olmo2_map(const ModelConfig& c) {
  return decoder_tensors(c, {.norms = {{"post_attention_norm", "post_attention_layernorm"},
                                       {"post_ffw_norm", "post_feedforward_layernorm"}}});
}

}  // namespace

const Arch& olmo2_arch() {
  static const Arch arch = {.name = "olmo2",
                            .model_types = {"olmo2"},
                            .architectures = {"Olmo2ForCausalLM"},
                            .needs_output = true,
                            .sliding_period = 4,
                            .traits = olmo2_traits,
                            .read_hf = olmo2_read_hf,
                            .write_hf = write_hf_decoder,
                            .tensor_map = olmo2_map};
  return arch;
}

}  // namespace narrow::model

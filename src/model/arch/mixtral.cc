// Mixtral: Llama's attention, a softmax router over experts. GGUF calls it llama too, with
// llama.expert_count.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void mixtral_traits(ModelConfig& c) {
  c.rope.style = RopeStyle::kInterleaved;
  c.expert_weights_norm = true;
}

void mixtral_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {}, c);
  read_hf_sliding(f, arch, c);
  read_hf_activation(f, {"hidden_act"}, c);
  read_hf_experts(f, "intermediate_size", c);
}

void mixtral_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j.erase("attention_bias");
  j["num_local_experts"] = c.n_expert;
  j["num_experts_per_tok"] = c.n_expert_used;
  j["sliding_window"] = c.sliding_window > 0 ? Json(c.sliding_window) : Json(nullptr);
}

std::vector<TensorRule> mixtral_map(const ModelConfig& c) {
  return decoder_tensors(
      c,
      {.qk_layout = Layout::kRopePairs, .moe = "block_sparse_moe", .gate = "w1", .up = "w3", .down = "w2"});
}

}  // namespace

const Arch& mixtral_arch() {
  static const Arch arch = {.name = "llama",
                            .moe = true,
                            .model_types = {"mixtral"},
                            .architectures = {"MixtralForCausalLM"},
                            .default_theta = 1e6,
                            .traits = mixtral_traits,
                            .read_hf = mixtral_read_hf,
                            .write_hf = mixtral_write_hf,
                            .tensor_map = mixtral_map};
  return arch;
}

}  // namespace narrow::model

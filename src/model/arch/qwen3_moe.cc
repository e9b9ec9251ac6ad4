// Qwen3 with experts. Layers may be dense (mlp_only_layers, decoder_sparse_step): narrow runs and writes
// them, llama.cpp does not load such files. Its graph always renormalises the chosen experts' weights.
#include <algorithm>

#include "model/arch/common.h"

namespace narrow::model {
namespace {

void qwen3_moe_traits(ModelConfig& c) {
  c.qk_norm = QkNorm::kPerHead;
  c.expert_weights_norm = true;
}

void qwen3_moe_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.n_ctx = 32768}, c);
  read_hf_biases(f, c);
  c.ffn_bias = false;
  read_hf_optional_sliding(f, arch, c);
  read_hf_activation(f, {"hidden_act"}, c);
  read_hf_experts(f, "moe_intermediate_size", c);
  c.expert_weights_norm = f.boolean("norm_topk_prob", false);
  const std::int64_t step = f.integer({"decoder_sparse_step"}, 1, kMaxLayers, 1);
  const std::vector<double> dense = f.numbers("mlp_only_layers");
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    const bool listed = std::find(dense.begin(), dense.end(), static_cast<double>(i)) != dense.end();
    c.layers[i].moe = !listed && static_cast<std::int64_t>(i + 1) % step == 0;
  }
}

void qwen3_moe_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j["moe_intermediate_size"] = c.n_ff_expert;
  j["num_experts"] = c.n_expert;
  j["num_local_experts"] = c.n_expert;
  j["num_experts_per_tok"] = c.n_expert_used;
  j["norm_topk_prob"] = c.expert_weights_norm;
  j["decoder_sparse_step"] = 1;
  Json dense = Json::array();
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    if (!c.layers[i].moe) dense.push_back(i);
  }
  j["mlp_only_layers"] = std::move(dense);
  write_hf_layer_types(c, j);
  j["use_sliding_window"] = c.sliding_window > 0;
}

std::vector<TensorRule> qwen3_moe_map(const ModelConfig& c) { return decoder_tensors(c); }

}  // namespace

const Arch& qwen3_moe_arch() {
  static const Arch arch = {.name = "qwen3moe",
                            .moe = true,
                            .model_types = {"qwen3_moe"},
                            .architectures = {"Qwen3MoeForCausalLM"},
                            .traits = qwen3_moe_traits,
                            .read_hf = qwen3_moe_read_hf,
                            .write_hf = qwen3_moe_write_hf,
                            .tensor_map = qwen3_moe_map};
  return arch;
}

}  // namespace narrow::model

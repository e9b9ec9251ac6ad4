// Llama 1 to 3.3, SmolLM and SmolLM2, and Mistral (the same graph with a sliding window in every layer).
// llama.cpp's own llama graph has no window: it ignores `llama.attention.sliding_window`, which narrow writes
// and reads.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

void llama_traits(ModelConfig& c) { c.rope.style = RopeStyle::kInterleaved; }

void llama_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {}, c);
  if (f.text({"model_type"}, "llama") == "mistral") {
    read_hf_sliding(f, arch, c);
  } else {
    read_hf_biases(f, c);
  }
  read_hf_activation(f, {"hidden_act"}, c);
}

void llama_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  if (c.sliding_window > 0) {
    j["model_type"] = "mistral";
    j["architectures"] = {"MistralForCausalLM"};
    j["sliding_window"] = c.sliding_window;
    j.erase("attention_bias");
  } else {
    j["mlp_bias"] = c.ffn_bias;
  }
}

std::vector<TensorRule> llama_map(const ModelConfig& c) {
  return decoder_tensors(c, {.qk_layout = Layout::kRopePairs});
}

}  // namespace

const Arch& llama_arch() {
  static const Arch arch = {.name = "llama",
                            .model_types = {"llama", "mistral"},
                            .architectures = {"LlamaForCausalLM", "MistralForCausalLM"},
                            .traits = llama_traits,
                            .read_hf = llama_read_hf,
                            .write_hf = llama_write_hf,
                            .tensor_map = llama_map};
  return arch;
}

}  // namespace narrow::model

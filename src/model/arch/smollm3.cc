// SmolLM3: Llama without rope in every fourth layer. GGUF keeps no list of them and llama.cpp assumes every
// fourth; narrow writes `smollm3.rope.layers` where that would be wrong, and reads it back.
#include "model/arch/common.h"

namespace narrow::model {
namespace {

constexpr std::size_t kStep = 4;

void smollm3_traits(ModelConfig& c) { c.rope.style = RopeStyle::kInterleaved; }

void smollm3_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.n_ctx = 32768, .tied = true}, c);
  read_hf_biases(f, c);
  read_hf_activation(f, {"hidden_act"}, c);
  const auto step = static_cast<std::size_t>(f.integer({"no_rope_layer_interval"}, 1, kMaxLayers, kStep));
  const std::vector<double> listed = f.numbers("no_rope_layers");  // 1: the layer has rope
  if (!listed.empty() && listed.size() != c.layers.size()) {
    f.reject("no_rope_layers", fmt::format("{} entries for {} layers", listed.size(), c.layers.size()));
    return;
  }
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    c.layers[i].rope = listed.empty() ? (i + 1) % step != 0 : listed[i] != 0.0;
  }
  if (f.boolean("use_sliding_window", false) && !f.has("layer_types")) {
    // The class slides the layers that have no rope.
    c.sliding_window = f.integer({"sliding_window"}, 0, kMaxContext, 0);
    for (LayerConfig& layer : c.layers) layer.sliding = c.sliding_window > 0 && !layer.rope;
  } else {
    read_hf_optional_sliding(f, arch, c);
  }
}

bool usual_layers(const ModelConfig& c) {
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    if (c.layers[i].rope != ((i + 1) % kStep != 0)) return false;
  }
  return true;
}

void smollm3_read_gguf(GgufFields& f, ModelConfig& c) {
  const std::vector<bool> listed = f.booleans("rope.layers");
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    c.layers[i].rope = listed.size() == c.layers.size() ? listed[i] : (i + 1) % kStep != 0;
  }
}

void smollm3_write_gguf(const ModelConfig& c, io::gguf::Metadata& m) {
  if (usual_layers(c)) return;
  std::vector<bool> listed;
  for (const LayerConfig& layer : c.layers) listed.push_back(layer.rope);
  m.set_bools("smollm3.rope.layers", std::move(listed));
}

void smollm3_write_hf(const ModelConfig& c, Json& j) {
  write_hf_decoder(c, j);
  j["mlp_bias"] = c.ffn_bias;
  Json listed = Json::array();
  for (const LayerConfig& layer : c.layers) listed.push_back(layer.rope ? 1 : 0);
  j["no_rope_layers"] = std::move(listed);
  write_hf_layer_types(c, j);
  j["use_sliding_window"] = c.sliding_window > 0;
}

std::vector<TensorRule> smollm3_map(const ModelConfig& c) {
  return decoder_tensors(c, {.qk_layout = Layout::kRopePairs});
}

}  // namespace

const Arch& smollm3_arch() {
  static const Arch arch = {.name = "smollm3",
                            .model_types = {"smollm3"},
                            .architectures = {"SmolLM3ForCausalLM"},
                            .default_theta = 2e6,
                            .traits = smollm3_traits,
                            .read_hf = smollm3_read_hf,
                            .read_gguf = smollm3_read_gguf,
                            .write_gguf = smollm3_write_gguf,
                            .write_hf = smollm3_write_hf,
                            .tensor_map = smollm3_map};
  return arch;
}

}  // namespace narrow::model

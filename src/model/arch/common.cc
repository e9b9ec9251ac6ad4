#include "model/arch/common.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace narrow::model {

std::string_view hf_activation_name(Activation a) {
  switch (a) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGeluTanh:
      return "gelu_pytorch_tanh";
    case Activation::kGeluErf:
      return "gelu";
    case Activation::kRelu:
      return "relu";
  }
  return "silu";
}

void read_hf_activation(HfFields& f, std::initializer_list<std::string_view> keys, ModelConfig& c) {
  const std::string name = f.text(keys, hf_activation_name(c.activation));
  Activation a = Activation::kSilu;
  if (name == "silu" || name == "swish") {
    a = Activation::kSilu;
  } else if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    a = Activation::kGeluTanh;
  } else if (name == "gelu" || name == "gelu_python") {
    a = Activation::kGeluErf;
  } else if (name == "relu") {
    a = Activation::kRelu;
  } else {
    f.reject(*keys.begin(), "this activation is not known", ErrorCode::kUnsupported);
    return;
  }
  // GGUF has no key for the activation: readers take the architecture's own.
  if (a != c.activation) {
    f.reject(*keys.begin(),
             fmt::format("architecture {} always has '{}'", c.arch, hf_activation_name(c.activation)),
             ErrorCode::kUnsupported);
  }
}

void read_hf_decoder(HfFields& f, const Arch& arch, const HfDefaults& d, ModelConfig& c) {
  const auto optional = [](std::int64_t x) { return x ? std::optional<std::int64_t>(x) : std::nullopt; };
  c.n_embd = f.integer({"hidden_size"}, 1, kMaxWidth);
  c.n_layer = f.integer({"num_hidden_layers"}, 1, kMaxLayers);
  c.n_head = f.integer({"num_attention_heads"}, 1, kMaxHeads, optional(d.n_head));
  c.n_head_kv = f.integer({"num_key_value_heads"}, 1, kMaxHeads, d.n_head_kv ? d.n_head_kv : c.n_head);
  c.n_ff = f.integer({"intermediate_size"}, 1, kMaxFfn);
  c.n_vocab = f.integer({"vocab_size"}, 1, kMaxVocab, optional(d.n_vocab));
  c.n_ctx_train = f.integer({"max_position_embeddings"}, 1, kMaxContext, d.n_ctx);
  if (!f.ok()) return;
  if (!f.has("head_dim") && d.head_dim == 0 && c.n_embd % c.n_head != 0) {
    f.reject("hidden_size",
             fmt::format("it is no multiple of the {} heads, and there is no head_dim", c.n_head));
    return;
  }
  c.head_dim = f.integer({"head_dim"}, 1, kMaxHeadDim, d.head_dim ? d.head_dim : c.n_embd / c.n_head);
  c.norm_eps = static_cast<float>(f.number({"rms_norm_eps"}, 0.0, 1.0, d.norm_eps));
  c.tied_head = f.boolean("tie_word_embeddings", d.tied);
  c.layers.assign(static_cast<std::size_t>(c.n_layer), LayerConfig{});
  read_hf_rope(f, arch, c);
}

void read_hf_biases(HfFields& f, ModelConfig& c) {
  c.qkv_bias = c.out_bias = f.boolean("attention_bias", false);
  c.ffn_bias = f.boolean("mlp_bias", false);
}

void read_hf_experts(HfFields& f, std::string_view width_key, ModelConfig& c) {
  c.n_expert = f.integer({"num_local_experts", "num_experts"}, 1, kMaxExperts);
  c.n_expert_used = f.integer({"num_experts_per_tok"}, 1, kMaxExperts);
  c.n_ff_expert = f.integer({width_key}, 1, kMaxFfn);
  if (f.ok() && c.n_expert_used > c.n_expert) {
    f.reject("num_experts_per_tok", fmt::format("there are only {} experts", c.n_expert));
  }
  for (LayerConfig& layer : c.layers) layer.moe = true;
}

// ---- sliding windows ----

void read_hf_sliding(HfFields& f, const Arch& arch, ModelConfig& c, std::int64_t fallback_window) {
  const std::int64_t window = f.integer({"sliding_window"}, 0, kMaxContext, fallback_window);
  const std::vector<std::string> types = f.texts("layer_types");
  if (!f.ok()) return;
  if (!types.empty() && types.size() != c.layers.size()) {
    f.reject("layer_types", fmt::format("{} entries for {} layers", types.size(), c.layers.size()));
    return;
  }
  bool any = false;
  const std::int64_t period =
      f.integer({"sliding_window_pattern", "_sliding_window_pattern"}, 0, kMaxLayers, arch.sliding_period);
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    bool sliding = false;
    if (!types.empty()) {
      sliding = types[i] == "sliding_attention";
      if (!sliding && types[i] != "full_attention") {
        f.reject("layer_types", fmt::format("layer type '{}' is not supported", types[i]),
                 ErrorCode::kUnsupported);
        return;
      }
    } else {
      sliding = period == 0 || static_cast<std::int64_t>(i + 1) % period != 0;
    }
    c.layers[i].sliding = sliding && window > 0;
    any = any || sliding;
  }
  c.sliding_window = any ? window : 0;
  if (!types.empty() && any && window == 0) f.reject("sliding_window", "layer_types has layers that need it");
}

void read_hf_optional_sliding(HfFields& f, const Arch& arch, ModelConfig& c) {
  if (!f.boolean("use_sliding_window", false)) return;
  if (f.has("layer_types")) return read_hf_sliding(f, arch, c);
  const std::int64_t window = f.integer({"sliding_window"}, 0, kMaxContext, 4096);
  const std::int64_t first = f.integer({"max_window_layers"}, 0, kMaxLayers, 28);
  if (window == 0 || first >= c.n_layer) return;
  c.sliding_window = window;
  for (std::int64_t i = first; i < c.n_layer; ++i) c.layers[static_cast<std::size_t>(i)].sliding = true;
}

// ---- to config.json ----

double shortest(float x) { return std::strtod(fmt::format("{}", x).c_str(), nullptr); }

void write_hf_decoder(const ModelConfig& c, Json& j) {
  j["hidden_size"] = c.n_embd;
  j["num_hidden_layers"] = c.n_layer;
  j["num_attention_heads"] = c.n_head;
  j["num_key_value_heads"] = c.n_head_kv;
  j["head_dim"] = c.head_dim;
  j["intermediate_size"] = c.n_ff;
  j["vocab_size"] = c.n_vocab;
  j["max_position_embeddings"] = c.n_ctx_train;
  j["rms_norm_eps"] = shortest(c.norm_eps);
  j["hidden_act"] = hf_activation_name(c.activation);
  j["tie_word_embeddings"] = c.tied_head;
  j["attention_bias"] = c.qkv_bias;
  write_hf_rope(c, j);
}

void write_hf_layer_types(const ModelConfig& c, Json& j) {
  Json types = Json::array();
  for (const LayerConfig& layer : c.layers)
    types.push_back(layer.sliding ? "sliding_attention" : "full_attention");
  j["layer_types"] = std::move(types);
  j["sliding_window"] = c.sliding_window > 0 ? Json(c.sliding_window) : Json(nullptr);
}

}  // namespace narrow::model

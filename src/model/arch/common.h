// Shared by the architecture files.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/arch/arch.h"

namespace narrow::model {

// ---- config.json ----

// Values that a config.json may leave out because the class of the model type has them; 0 means required
// (n_head_kv and head_dim then follow from n_head and n_embd).
struct HfDefaults {
  std::int64_t n_head = 0, n_head_kv = 0, head_dim = 0, n_vocab = 0, n_ctx = 2048;
  double norm_eps = 1e-6;
  bool tied = false;
  Activation activation = Activation::kSilu;
};

// hidden_size, num_hidden_layers, ... as most classes name them; rope; sizes c.layers.
void read_hf_decoder(HfFields& f, const Arch& arch, const HfDefaults& defaults, ModelConfig& c);
// rope_parameters (transformers 5) or rope_theta and rope_scaling, partial rotary factors, theta_local.
void read_hf_rope(HfFields& f, const Arch& arch, ModelConfig& c);
// sliding_window: `layer_types` where given, else the architecture's pattern.
void read_hf_sliding(HfFields& f, const Arch& arch, ModelConfig& c, std::int64_t fallback_window = 0);
// As read_hf_sliding, when use_sliding_window says so (qwen2, qwen3, smollm3): layers from max_window_layers
// on.
void read_hf_optional_sliding(HfFields& f, const Arch& arch, ModelConfig& c);
void read_hf_activation(HfFields& f, std::initializer_list<std::string_view> keys, ModelConfig& c);
// attention_bias (q, k, v and output) and mlp_bias.
void read_hf_biases(HfFields& f, ModelConfig& c);
void read_hf_experts(HfFields& f, std::string_view width_key, ModelConfig& c);

// The number that a person wrote: 1e-06, not the double nearest to the float.
double shortest(float x);
void write_hf_decoder(const ModelConfig& c, Json& j);
// theta_key: the name that the class used before transformers 5.
void write_hf_rope(const ModelConfig& c, Json& j, std::string_view theta_key = "rope_theta");
void write_hf_layer_types(const ModelConfig& c, Json& j);
std::string_view hf_activation_name(Activation a);

// ---- rope ----

// Divisors of the frequencies under Llama 3's rule, dims / 2 of them.
std::vector<float> llama3_rope_factors(const RopeConfig& rope);
// Finds the rule's parameters for divisors read from a GGUF, which does not keep them. False: no known set
// fits.
bool recover_llama3_rope(RopeConfig& rope);
double yarn_default_attention(double factor);

// ---- tensors ----

class MapBuilder {
 public:
  explicit MapBuilder(const ModelConfig& config) : config_(config) {}
  void add(std::string name, Shape shape, std::string hf, Layout layout = Layout::kCopy,
           std::int64_t heads = 0);
  // "<name>.weight" [n_out, n_in] and, if asked for, "<name>.bias" [n_out].
  void linear(const std::string& name, const std::string& hf, std::int64_t n_out, std::int64_t n_in,
              bool bias, Layout layout = Layout::kCopy, std::int64_t heads = 0);
  void norm(const std::string& name, const std::string& hf, std::int64_t n, Layout layout = Layout::kCopy);
  void stack(const std::string& name, const std::vector<std::string>& hf, std::int64_t n_out,
             std::int64_t n_in);
  void embeddings(const std::string& hf_embedding);
  void rope_factors();
  // output_norm, and the head if it is not tied.
  void head(const std::string& hf_norm, const std::string& hf_head, Layout norm_layout = Layout::kCopy);
  std::vector<TensorRule> take() { return std::move(rules_); }

 private:
  const ModelConfig& config_;
  std::vector<TensorRule> rules_;
};

// The decoder that llama, qwen, gemma, olmo2, granite, smollm3 and mixtral vary.
struct DecoderNames {
  std::vector<std::pair<std::string_view, std::string_view>> norms = {
      {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"}};
  Layout qk_layout = Layout::kCopy;
  Layout norm_layout = Layout::kCopy;
  std::string_view moe = "mlp";                                             // module of router and experts
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";  // within an expert
};
std::vector<TensorRule> decoder_tensors(const ModelConfig& c, const DecoderNames& names = {});

}  // namespace narrow::model

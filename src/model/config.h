// One description of a decoder-only transformer, wide enough for every architecture in arch/. The arch files
// fill it from config.json or GGUF metadata; runtime/ and train/ build the layer graph from it alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace narrow::model {

enum class NormKind : std::uint8_t { kRms, kLayer };
enum class Activation : std::uint8_t { kSilu, kGeluTanh, kGeluErf, kRelu };
enum class Position : std::uint8_t { kRope, kLearned };
enum class RopeStyle : std::uint8_t {
  kInterleaved,  // pairs (2i, 2i+1): GGUF's llama layout (Q and K rows permuted against Hugging Face)
  kHalf,         // pairs (i, i+d/2): GPT-NeoX layout
};
enum class RopeScaling : std::uint8_t { kNone, kLinear, kYarn, kLlama3, kLongRope };
enum class QkNorm : std::uint8_t {
  kNone,
  kPerHead,  // over head_dim, one gain vector for all heads (qwen3, gemma3)
  kFull,     // over the whole projection (olmo2)
};

struct RopeConfig {
  RopeStyle style = RopeStyle::kHalf;
  float theta = 10000.0f;
  float theta_local = 0.0f;  // of sliding-window layers where it differs (gemma3); 0: same as theta
  int dims = 0;              // rotated dimensions of each head, <= head_dim
  RopeScaling scaling = RopeScaling::kNone;  // sliding layers with a theta of their own are never scaled
  float factor = 1.0f;
  int original_context = 0;
  float attention_factor = 1.0f;                          // yarn / longrope: multiplies cos and sin
  float beta_fast = 32.0f, beta_slow = 1.0f;              // yarn
  float low_freq_factor = 1.0f, high_freq_factor = 4.0f;  // llama3
  // Per frequency divisors (dims/2 values): longrope short and long, or llama3's computed ones in `factors`
  // (GGUF's rope_freqs.weight).
  std::vector<float> factors, factors_long, factors_short;
  bool operator==(const RopeConfig&) const = default;
};

struct LayerConfig {
  bool sliding = false;  // attends to the last `sliding_window` positions only
  bool rope = true;      // false: no position encoding in this layer (smollm3)
  bool moe = false;
  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  std::string arch;  // registry name == GGUF general.architecture, e.g. "llama"
  std::string name;  // general.name
  std::int64_t n_vocab = 0, n_ctx_train = 0, n_embd = 0, n_layer = 0, n_ff = 0;
  std::int64_t n_head = 0, n_head_kv = 0, head_dim = 0;  // head_dim of keys and values
  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5f;
  Position position = Position::kRope;
  RopeConfig rope;
  QkNorm qk_norm = QkNorm::kNone;
  Activation activation = Activation::kSilu;
  bool gated_ffn = true;           // down(act(gate(x)) * up(x)); false: down(act(up(x)))
  bool parallel_residual = false;  // x + attn(norm1(x)) + ffn(norm2(x)) (gpt_neox)
  bool tied_head = false;          // output.weight is token_embd.weight
  float embedding_scale = 1.0f;    // gemma: sqrt(n_embd); granite: embedding_multiplier
  float residual_scale = 1.0f;     // granite
  float logit_scale = 1.0f;        // logits are multiplied by it (granite: 1 / logits_scaling)
  float attn_scale = 0.0f;         // multiplies q.k; 0: 1/sqrt(head_dim)
  float attn_softcap = 0.0f, final_softcap = 0.0f;  // 0: none
  std::int64_t sliding_window = 0;                  // 0: none
  std::int64_t n_expert = 0, n_expert_used = 0, n_ff_expert = 0;
  bool expert_weights_norm = false;  // chosen experts' probabilities are renormalised to sum 1
  // Which projections carry a bias beside their weight (LayerNorm models also have one beside each norm).
  bool qkv_bias = false, out_bias = false, ffn_bias = false;
  std::vector<LayerConfig> layers;  // n_layer entries
  bool operator==(const ModelConfig&) const = default;
};

}  // namespace narrow::model

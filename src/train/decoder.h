// The decoder as one torch module, built from ModelConfig alone: the same layer graph as runtime/decoder.cc
// for every dense architecture, in floating point and differentiable.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/source.h"
#include "train/nodes/node.h"
#include "train/torch.h"

namespace narrow::train {

// An additive low-rank update of a weight (LoRA, Hu et al. 2021): w + scale * b * a.
struct Lora {
  at::Tensor a;  // [rank, k]
  at::Tensor b;  // [n, rank], 0 at the start
  float scale = 1.0f;
};

class Decoder {
 public:
  // All weights of a source as `dtype` on `device`, leaves without gradients. kUnsupported: experts.
  static Result<std::unique_ptr<Decoder>> create(const model::ModelSource& source,
                                                 at::ScalarType dtype = at::kFloat,
                                                 at::Device device = at::kCPU);
  // Weights for training from scratch: normal with deviation 0.02, residual outputs scaled down by
  // sqrt(2 n_layer) (GPT-2's rule), gains 1, biases 0.
  static Result<std::unique_ptr<Decoder>> create_random(const model::ModelConfig& config, std::uint64_t seed,
                                                        at::ScalarType dtype = at::kFloat,
                                                        at::Device device = at::kCPU);

  const model::ModelConfig& config() const { return config_; }
  // Canonical names ("blk.0.attn_q.weight"), sorted. A tied head has no entry of its own.
  std::map<std::string, at::Tensor>& weights() { return weights_; }
  const std::map<std::string, at::Tensor>& weights() const { return weights_; }
  // Moves weights and LoRAs; what requires gradients goes on doing so. Nodes stay on the CPU, and tensors
  // travel to them.
  void to(at::Device device);
  at::Tensor weight(const std::string& name) const;  // undefined where there is none

  // Nodes, by the weight's canonical name. A node on a weight's input stands for all weights with that input
  // (q, k, v; gate, up): attach the same one to each.
  void attach_weight(const std::string& name, std::shared_ptr<WeightNode> node) {
    weight_nodes_[name] = std::move(node);
  }
  void attach_input(const std::string& name, std::shared_ptr<Node> node) {
    input_nodes_[name] = std::move(node);
  }
  // On keys (after their rotation) and values [tokens, n_head_kv, head_dim] of a layer, as the KV cache
  // stores them.
  void attach_cache(std::int64_t layer, std::shared_ptr<Node> keys, std::shared_ptr<Node> values);
  void attach_lora(const std::string& name, Lora lora) { loras_[name] = std::move(lora); }
  const std::map<std::string, std::shared_ptr<WeightNode>>& weight_nodes() const { return weight_nodes_; }
  const std::map<std::string, std::shared_ptr<Node>>& input_nodes() const { return input_nodes_; }
  // By layer, or empty.
  const std::vector<std::pair<std::shared_ptr<Node>, std::shared_ptr<Node>>>& cache_nodes() const {
    return cache_nodes_;
  }
  std::map<std::string, Lora>& loras() { return loras_; }
  const std::map<std::string, Lora>& loras() const { return loras_; }
  // Adds every LoRA's product to its weight and forgets it.
  void merge_loras();

  // Weights as products see them: LoRA added, then fake-quantized. Kept until forget_quantized() where no
  // gradient is wanted.
  at::Tensor effective(const std::string& name);
  void forget_quantized() { constant_.clear(); }
  // Between these two calls trained weights are quantized once for any number of forward and backward passes;
  // finish_step() passes the gradients that have gathered on through the nodes, into weights and parameters.
  void begin_step();
  void finish_step();

  // Called with every matrix's output as it is computed (stem: "blk.0.ffn_down"), so that its gradient can be
  // watched; empty: nobody. Not together with set_checkpointing().
  using OutputObserver = std::function<void(const std::string& stem, const at::Tensor& y)>;
  void observe_outputs(OutputObserver observer) { observer_ = std::move(observer); }

  // Recompute each layer's inside in the backward pass instead of keeping it (Chen et al. 2016).
  void set_checkpointing(bool on) { checkpointing_ = on; }

  // tokens [b, t] int64, positions 0 .. t-1 each -> [b, t, n_embd].
  at::Tensor embed(const at::Tensor& tokens);
  at::Tensor layer(std::int64_t index, const at::Tensor& x);  // [b, t, n_embd] -> the same
  at::Tensor final_norm(const at::Tensor& x);
  // Up to the final norm; `layers`, where given, gets what comes out of each layer.
  at::Tensor hidden(const at::Tensor& tokens, std::vector<at::Tensor>* layers = nullptr);
  // [.., n_embd] -> [.., n_vocab], scaled and capped.
  at::Tensor head(const at::Tensor& h);
  at::Tensor logits(const at::Tensor& tokens) { return head(hidden(tokens)); }
  // The two sides of the head's product, for losses that never hold all logits (loss.h).
  at::Tensor head_input(const at::Tensor& h);
  at::Tensor head_weight();
  std::string head_name() const;  // "output.weight" or "token_embd.weight"

 private:
  explicit Decoder(model::ModelConfig config) : config_(std::move(config)) {}
  Status bind(const model::ModelSource& source, at::ScalarType dtype, at::Device device);
  at::Tensor make_effective(const std::string& name);
  at::Tensor linear(const std::string& stem, const at::Tensor& x);
  at::Tensor norm(const std::string& stem, const at::Tensor& x);
  at::Tensor attention(std::int64_t index, const at::Tensor& x);
  at::Tensor feed_forward(std::int64_t index, const at::Tensor& x);
  at::Tensor layer_inside(std::int64_t index, const at::Tensor& x);
  at::Tensor norm_heads(const std::string& stem, const at::Tensor& x);
  at::Tensor rotate(const at::Tensor& x, std::int64_t layer);
  at::Tensor activate(const at::Tensor& x) const;
  // cos and sin [t, dims / 2] of positions 0 .. t-1.
  struct Angles {
    at::Tensor cos, sin;
  };
  const Angles& angles(std::int64_t t, bool local, const at::Tensor& like);

  model::ModelConfig config_;
  std::map<std::string, at::Tensor> weights_;
  std::map<std::string, std::shared_ptr<WeightNode>> weight_nodes_;
  std::map<std::string, std::shared_ptr<Node>> input_nodes_;
  std::vector<std::pair<std::shared_ptr<Node>, std::shared_ptr<Node>>> cache_nodes_;  // by layer, or empty
  std::map<std::string, Lora> loras_;
  std::map<std::string, at::Tensor> constant_;  // effective weights that need no gradient
  struct Shared {
    at::Tensor out, leaf;  // what the nodes gave; the same values, where gradients gather
  };
  std::map<std::string, Shared> shared_;
  std::map<std::pair<std::int64_t, bool>, Angles> angles_;
  bool checkpointing_ = false;
  OutputObserver observer_;
  // Layers as functions, which must outlive the backward pass.
  std::map<std::int64_t, std::unique_ptr<std::function<at::Tensor(const at::Tensor&)>>> recomputed_;
};

}  // namespace narrow::train

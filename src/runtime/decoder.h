// The layer graph: a run of tokens through all layers of one sequence.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "base/aligned_buffer.h"
#include "ops/matmul.h"
#include "runtime/kv_cache/kv_cache.h"
#include "runtime/rope_table.h"
#include "runtime/session.h"
#include "runtime/weights.h"

namespace narrow::runtime {

// Most tokens of one run: it bounds the activations that are kept at a time.
inline constexpr std::int64_t kChunk = 512;

class Decoder {
 public:
  // Throws std::bad_alloc.
  static Result<std::unique_ptr<Decoder>> create(std::shared_ptr<const LoadedModel> model,
                                                 std::int64_t n_ctx);

  // Runs up to kChunk tokens at positions first, first + 1, ...; hidden() then holds a row of the residual
  // stream for each. Positions before `first` must be in the cache.
  Status run(std::span<const std::int32_t> tokens, std::int64_t first);
  // Logits of rows [begin, begin + count) of the last run, [count, n_vocab].
  Status logits(std::int64_t begin, std::int64_t count, float* out);

  const KvCache& cache() const { return cache_; }

 private:
  Decoder(std::shared_ptr<const LoadedModel> model, std::int64_t n_ctx);
  ops::Matrix rows(AlignedBuffer<float>& buffer, std::int64_t width) { return {buffer.data(), m_, width}; }
  void normalise(const Norm& norm, ops::ConstMatrix x, ops::Matrix out) const;
  // input_ = x after this norm (or as it is without one), in the forms asked for.
  void prepare_input(const Norm& norm, ops::ConstMatrix x, ops::Forms forms);
  Status embed(std::span<const std::int32_t> tokens);
  Status attention(std::int64_t layer, ops::Matrix out);
  void position_qk(std::int64_t layer, ops::Matrix q, ops::Matrix k);
  Status feed_forward(std::int64_t layer, ops::Matrix out);
  Status dense_feed_forward(const LayerWeights& w, ops::Matrix out);
  Status expert_feed_forward(const LayerWeights& w, ops::Matrix out);
  Status layer(std::int64_t index);

  std::shared_ptr<const LoadedModel> model_;
  const model::ModelConfig& config_;
  const ModelWeights& weights_;
  KvCache cache_;
  RopeTable rope_, rope_local_;
  bool has_local_rope_ = false;
  std::int64_t m_ = 0, first_ = 0;  // rows of the current run, and the position of row 0
  // The residual stream, a layer's input after its norm, the branches' outputs, and what is inside the
  // branches.
  AlignedBuffer<float> x_, normed_, branch_, branch2_, qkv_, heads_, ffn_;
  ops::Activations input_, inner_;  // left sides of products
  AlignedBuffer<float> router_, expert_in_, expert_out_;
};

}  // namespace narrow::runtime

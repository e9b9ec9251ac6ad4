// The layer graph: a run of tokens, of one sequence or several, through all layers.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "base/aligned_buffer.h"
#include "ops/attention.h"
#include "ops/matmul.h"
#include "runtime/kv_cache/kv_pool.h"
#include "runtime/rope_table.h"
#include "runtime/session.h"
#include "runtime/taps.h"
#include "runtime/weights.h"

namespace narrow::runtime {

// Most tokens of one run: it bounds the activations that are kept at a time.
inline constexpr std::int64_t kChunk = 512;

// Tokens that one sequence takes.
struct Run {
  KvSequence* sequence = nullptr;
  std::span<const std::int32_t> tokens;
};

class Decoder {
 public:
  // For n_sequences of n_ctx positions. Throws std::bad_alloc.
  static Result<std::unique_ptr<Decoder>> create(std::shared_ptr<const LoadedModel> model, int n_sequences,
                                                 std::int64_t n_ctx, const SessionOptions& options);

  // Appends the runs' tokens, kChunk in all at most, to their sequences, each of which appears once. On an
  // error the sequences keep their lengths.
  Status run(std::span<const Run> runs);
  // As run(), from a residual stream instead of from tokens: x [m, n_embd] goes in and comes out after the
  // layers. `rows` of each sequence, in order; x.rows in all, kChunk at most.
  struct Rows {
    KvSequence* sequence = nullptr;
    std::int64_t rows = 0;
  };
  Status run_rows(std::span<const Rows> runs, ops::Matrix x);
  // x [m, n_embd] = the embedded tokens of the runs, whose sequences are left alone.
  Status embed_rows(std::span<const Run> runs, ops::Matrix x);
  // Null for none; must outlive the runs.
  void set_taps(TapSink* taps) { taps_ = taps; }
  // Of every layer, from now on.
  void set_half(Half half) { half_ = half; }
  // Logits of rows of the last run, counted over all its tokens and ascending: [rows.size(), n_vocab].
  Status logits(std::span<const std::int64_t> rows, float* out);

  // Where this model's sequences keep their keys and values.
  KvPool& pool() { return *pool_; }

 private:
  Decoder(std::shared_ptr<const LoadedModel> model, std::unique_ptr<KvPool> pool, std::int64_t rows);
  ops::Matrix rows(AlignedBuffer<float>& buffer, std::int64_t width) { return {buffer.data(), m_, width}; }
  void normalise(const Norm& norm, ops::ConstMatrix x, ops::Matrix out) const;
  // input_ = x after this norm (or as it is without one), in the forms asked for.
  void prepare_input(const Norm& norm, ops::ConstMatrix x, ops::Forms forms);
  struct RowRange {
    KvSequence* sequence = nullptr;
    std::int64_t begin = 0, rows = 0;
  };
  Status start(std::span<const Rows> runs);
  Status layers();
  Status tap(std::int64_t layer, Tap tap, const ops::Activations& x, std::int64_t expert = -1);
  // fp32 too where somebody watches.
  ops::Forms watched(ops::Forms forms) const;
  Status embed(std::span<const std::int32_t> tokens);
  Status attention(std::int64_t layer, ops::Matrix out);
  void position_qk(std::int64_t layer, ops::Matrix q, ops::Matrix k);
  Status feed_forward(std::int64_t layer, ops::Matrix out);
  Status dense_feed_forward(std::int64_t layer, ops::Matrix out);
  Status expert_feed_forward(std::int64_t layer, ops::Matrix out);
  Status layer(std::int64_t index);

  std::shared_ptr<const LoadedModel> model_;
  const model::ModelConfig& config_;
  const ModelWeights& weights_;
  std::unique_ptr<KvPool> pool_;
  RopeTable rope_, rope_local_;
  bool has_local_rope_ = false;
  LayerTap after_layer_;
  TapSink* taps_ = nullptr;
  Half half_ = Half::kBoth;
  // Of the current run: rows, their positions, and the rows of each sequence.
  std::int64_t m_ = 0;
  std::int64_t lookups_ = 0;  // embedding rows since pages were given back
  std::vector<std::int64_t> positions_;
  std::vector<RowRange> ranges_;
  std::vector<ops::AttentionRun> attention_runs_;  // of the current layer
  // The residual stream, a layer's input after its norm, the branches' outputs, and what is inside the
  // branches.
  AlignedBuffer<float> x_, normed_, branch_, branch2_, qkv_, heads_, ffn_;
  ops::Activations input_, inner_;  // left sides of products
  AlignedBuffer<float> router_, expert_in_, expert_out_;
};

}  // namespace narrow::runtime

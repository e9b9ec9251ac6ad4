// Token ids in, logits out. The runtime never sees text.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/source.h"

namespace narrow::runtime {

struct ModelWeights;  // runtime/weights.h

// Weights bound to the layer graph. Shared by any number of sessions; read-only.
class LoadedModel {
 public:
  // Maps what can be mapped, materialises only what the source stores in another layout. Checks every
  // tensor's presence and shape against the config: errors name the tensor, its shape and the expected one.
  static Result<std::shared_ptr<const LoadedModel>> load(std::shared_ptr<const model::ModelSource> source);
  virtual ~LoadedModel() = default;
  virtual const model::ModelConfig& config() const = 0;
  virtual std::uint64_t weight_bytes() const = 0;  // mapped and owned
  virtual const ModelWeights& weights() const = 0;
};

struct SessionOptions {
  std::int64_t n_ctx = 0;  // most positions kept; 0: the model's n_ctx_train, at most 4096
};

enum class LogitRows : std::uint8_t { kNone, kLast, kAll };

class Session {
 public:
  static Result<std::unique_ptr<Session>> create(std::shared_ptr<const LoadedModel> model,
                                                 const SessionOptions& options = {});
  virtual ~Session() = default;
  // Appends tokens at the current position. `logits` becomes [rows, n_vocab] for the rows asked for. Ids out
  // of range and more tokens than n_ctx are kInvalidArgument; nothing changes then.
  virtual Status forward(std::span<const std::int32_t> tokens, LogitRows rows,
                         std::vector<float>& logits) = 0;
  // As above, but logits for the tokens from index `first` on.
  virtual Status forward_from(std::span<const std::int32_t> tokens, std::size_t first,
                              std::vector<float>& logits) = 0;
  virtual std::int64_t position() const = 0;
  virtual void truncate(std::int64_t position) = 0;  // forget everything from `position` on; 0 resets
  virtual std::int64_t n_ctx() const = 0;
  virtual std::uint64_t cache_bytes() const = 0;  // KV cache
};

}  // namespace narrow::runtime

// Token ids in, logits out. The runtime never sees text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/source.h"

namespace narrow::runtime {

struct ModelWeights;  // runtime/weights.h
class TapSink;        // runtime/taps.h

// What the linear layers compute with.
enum class Compute : std::uint8_t {
  kStored,  // the formats of the file, activations int8 in groups of 32 where there is an integer kernel
  // Weights int8 per output channel, made when the model is loaded; activations int8 per token, each with a
  // scale of its own, or with a scale and a zero point.
  kW8A8,
  kW8A8Asymmetric,
  // As kW8A8, or what a file of int8 products says, on fake-quantized matrices in floating point: the same
  // logits, slowly.
  kSimulate,
  kFloat,  // fp32 products of the decoded weights: the reference, and what calibration runs
};

// Which tensors are bound. A model without all of them serves a Decoder only, which must not be asked for
// what it lacks.
enum class Part : std::uint8_t {
  kWhole,
  kEnds,   // embeddings, final norm and head: a graph of no layers
  kLayer,  // one layer alone: a graph of one
};

struct LoadOptions {
  Compute compute = Compute::kStored;
  Part part = Part::kWhole;
  std::int64_t layer = 0;  // kLayer: which
};

// Weights bound to the layer graph. Shared by any number of sessions; read-only.
class LoadedModel {
 public:
  // Maps what can be mapped, materialises only what the source stores in another layout. Checks every
  // tensor's presence and shape against the config: errors name the tensor, its shape and the expected one.
  static Result<std::shared_ptr<const LoadedModel>> load(std::shared_ptr<const model::ModelSource> source,
                                                         const LoadOptions& options = {});
  virtual ~LoadedModel() = default;
  virtual const model::ModelConfig& config() const = 0;
  virtual std::uint64_t weight_bytes() const = 0;  // mapped and owned
  virtual const ModelWeights& weights() const = 0;
  // Gives back pages of an embedding that is in memory a second time, as the packed head. Others keep theirs.
  virtual void release_embedding() const = 0;
};

// Sees the residual stream after a layer: x [rows, n_embd], rows as they were fed, valid during the call.
// Long inputs come in several runs, each through all layers. Called from one thread.
using LayerTap = std::function<void(std::int64_t layer, std::span<const float> x)>;

struct SessionOptions {
  std::int64_t n_ctx = 0;  // most positions kept; 0: the model's n_ctx_train, at most 4096
  // Formats of cached keys and values: f32, f16, q8_0 or q4_0. Not set: f16, and f32 for a model none of
  // whose weights are quantized.
  std::optional<Format> cache_keys, cache_values;
  bool rotate_keys = false;   // cache keys after a Hadamard rotation (queries are turned alike)
  LayerTap after_layer = {};  // may be empty
  TapSink* taps = nullptr;    // sees the inputs of all products; must outlive the session
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
  // Forgets everything from `position` on; 0 resets. kInvalidArgument where sliding windows have let go of
  // what `position` would see.
  virtual Status truncate(std::int64_t position) = 0;
  virtual std::int64_t n_ctx() const = 0;
  virtual std::uint64_t cache_bytes() const = 0;  // KV cache in use
};

}  // namespace narrow::runtime

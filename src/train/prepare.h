// The first of QAT's three steps, prepare -> train -> convert: fake-quantize nodes go where an existing
// quantized file quantizes, starting from its codes and scales.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/source.h"
#include "train/decoder.h"

namespace narrow::train {

enum class TrainWhat : std::uint8_t {
  kAll,     // weights, scales, gains
  kScales,  // the nodes' scales, gains and biases; codes stay as they are
  kLora,    // low-rank updates of the matrices, scales, gains
};

enum class Activations : std::uint8_t {
  kAsFile,  // int8 files: as they say; others: floating point
  kNone,
  kEngine,  // int8 per block, as the engine multiplies the file's block formats
};

struct PrepareOptions {
  TrainWhat what = TrainWhat::kAll;
  bool learn_scales = true;  // LSQ; false: as in the file
  double lean = 0.7;         // of the way from a code's value to the full-precision weight, within its cell
  Activations activations = Activations::kAsFile;
  bool observe_ranges = false;  // static ranges follow a moving average instead of gradients
  std::function<bool(const std::string&)> is_frozen;  // by canonical name; null: the embedding alone
  // Formats of the simulated KV cache (q8_0, q4_0); kF32: none.
  Format cache_keys = Format::kF32, cache_values = Format::kF32;
};

struct GraphRow {
  std::string name;  // of the weight
  std::string shape;
  std::string weight, input;  // what the nodes do; "" without one
  bool trained = false;
};

// `student` holds the full-precision weights; `start` is a quantized file of the same model. Afterwards the
// student computes what `start` decodes to, bit for bit: latent weights lie inside the cells of its codes,
// towards the full precision. Tensors in formats without scales to simulate (f16, codebooks of vectors) stay
// as decoded. Sets what requires gradients. kInvalidArgument: another model's file.
Result<std::vector<GraphRow>> prepare(Decoder& student, const model::ModelSource& start,
                                      const PrepareOptions& options);

// Without nodes: every weight that is not frozen requires gradients.
void train_weights(Decoder& student, const std::function<bool(const std::string&)>& is_frozen);

}  // namespace narrow::train

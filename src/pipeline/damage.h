// What each tensor of a model loses in each type that it could be stored in, as KL divergence of the whole
// model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calib/stats.h"
#include "calib/walk.h"
#include "model/overlay.h"
#include "narrow/progress.h"
#include "quant/quantizer.h"

namespace narrow::pipeline {

struct TypeDamage {
  Format format = Format::kF32;
  double kl = 0;            // that it adds to the model's
  std::uint64_t bytes = 0;  // of the tensor
};

struct TensorDamage {
  std::string name;
  double sensitivity = 0;  // KL per unit of output error
  bool measured = false;   // by a spot run; otherwise between its neighbours
  std::vector<TypeDamage> types;
};

// By quantizable tensor, in the order of the model. The KL of a whole model is taken to be
//   floor + scale * (sum of the tensors' kl)
// where `floor` is there whatever the weights are (int8 activations, caches), and `scale` is what errors do
// to each other.
struct DamageTable {
  std::vector<TensorDamage> tensors;
  double floor = 0, scale = 1;
  // Total of one type per tensor. kInvalidArgument names a tensor whose type is not in the table.
  Result<double> predict(std::span<const std::pair<std::string, Format>> types) const;
  const TensorDamage* find(std::string_view name) const;
};

struct DamageInputs {
  std::shared_ptr<const model::ModelSource> source;
  const calib::ModelStats* stats = nullptr;  // null: unweighted
  calib::TokenWindows windows;               // not those that the statistics were made of
  // By source tensor: the only type that it may get, where something says so. May be empty.
  std::vector<std::optional<Format>> fixed;
  bool small = false;  // the codebook types below 4 bits too
  bool floats = false;
  bool search = true;
};

// Types worth choosing from for rows of `row_length`, smallest first: with integer kernels; with `small` also
// the codebook types below 4 bits, which have none. f16 only where nothing else fits.
std::vector<Format> candidate_types(std::int64_t row_length, bool small);

// For each tensor a spot run: KL of the model with this tensor alone in a type of about 4.5 bits, on short
// windows; other types in proportion to their output error sum h_j (w_ij - q_ij)^2 with h = E[x^2]
// (statistics), on a sample of rows. KL is quadratic in small errors, and so is this. Large models: spot runs
// for some layers only, sensitivities of those between by interpolation of their logarithms. Errors of
// reading, running and encoding; kCancelled.
Result<DamageTable> measure_damage(const DamageInputs& inputs, ProgressSink& progress);

// Rounds tensor `index` to nearest in `format`, weighted by the statistics.
Result<AlignedBuffer<std::byte>> encode_tensor(const model::ModelSource& source, std::size_t index,
                                               Format format, const calib::ModelStats* stats, bool search);

}  // namespace narrow::pipeline

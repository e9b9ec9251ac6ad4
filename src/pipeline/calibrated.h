// Quantization that looks at data: the model is led layer by layer over calibration tokens, twice side by
// side, as it was and as it becomes, and each layer's matrices are quantized for what enters them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "calib/output_gradients.h"
#include "calib/stats.h"
#include "calib/walk.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "pipeline/job.h"
#include "pipeline/method_spec.h"
#include "pipeline/plan.h"

namespace narrow::pipeline {

// Input columns that stay out of a matrix's codes, which are 0 there, and whose weights are stored apart.
class KeptColumns {
 public:
  virtual ~KeptColumns() = default;
  virtual std::span<const std::int32_t> of(std::size_t tensor) const = 0;  // ascending
  // [rows, columns]; what is stored comes back in `weights`.
  virtual Status store(std::size_t tensor, std::vector<float>& weights) = 0;
};

struct CalibratedRun {
  std::shared_ptr<const model::ModelSource> source;  // transforms are folded in
  const Plan* plan = nullptr;
  const MethodSpec* method = nullptr;
  const calib::TokenWindows* windows = nullptr;
  const QuantizeOptions* options = nullptr;        // damping, sequential, search, seed
  const calib::GradientFile* gradients = nullptr;  // null: none
  KeptColumns* kept = nullptr;                     // null: none
};

// Every unfinished matrix that the plan quantizes, and, with norm corrections, the layers' norms and biases.
// Finished ones are taken as they are stored, so that a resumed run ends with the same bytes. Everything else
// is left to produce_by_rows(). Memory: both streams (tokens * n_embd floats each), one layer's weights in
// fp32, and the moments of its inputs.
Status produce_calibrated(const CalibratedRun& run, TensorStore& store, ProgressSink& progress);

}  // namespace narrow::pipeline

// Quantization that looks at data: the model is led layer by layer over calibration tokens, twice side by
// side, as it was and as it becomes, and each layer's matrices are quantized for what enters them.
#pragma once

#include <memory>

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

struct CalibratedRun {
  std::shared_ptr<const model::ModelSource> source;  // transforms are folded in
  const Plan* plan = nullptr;
  const MethodSpec* method = nullptr;
  const calib::TokenWindows* windows = nullptr;
  const QuantizeOptions* options = nullptr;        // damping, sequential, search, seed
  const calib::GradientFile* gradients = nullptr;  // null: none
};

// Every unfinished matrix that the plan quantizes, and, with norm corrections, the layers' norms and biases.
// Finished ones are taken as they are stored, so that a resumed run ends with the same bytes. Everything else
// is left to produce_by_rows(). Memory: both streams (tokens * n_embd floats each), one layer's weights in
// fp32, and the moments of its inputs.
Status produce_calibrated(const CalibratedRun& run, TensorStore& store, ProgressSink& progress);

}  // namespace narrow::pipeline

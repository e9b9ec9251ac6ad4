// Files whose products run on int8 activations: `--type w8a8` and its like (docs/formats/int8.md).
#pragma once

#include <string_view>

#include "narrow/progress.h"
#include "narrow/quantize.h"

namespace narrow::pipeline {

// "w8a8", "w8a8-static", "w8a8-asymmetric", "w4a8", "w4a8-static"; any case.
bool is_int8_type(std::string_view type);

// As plan_quantize() and run_quantize() for these types. The model is run on options.calibration.texts, or on
// random tokens where there are none, to choose outlier columns (options.outliers) and static scales. Options
// that need a mix of types, or another method than rtn, are kUnsupported.
Result<QuantizePlan> plan_int8(const QuantizeOptions& options);
Result<QuantizeReport> run_int8(const QuantizeOptions& options, ProgressSink& progress);

}  // namespace narrow::pipeline

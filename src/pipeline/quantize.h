// The job behind `narrow quantize`: plan, then stream every tensor into a new GGUF file.
#pragma once

#include "narrow/progress.h"
#include "narrow/quantize.h"

namespace narrow::pipeline {

Result<QuantizePlan> plan_quantize(const QuantizeOptions& options);
Result<QuantizeReport> run_quantize(const QuantizeOptions& options, ProgressSink& progress);

}  // namespace narrow::pipeline

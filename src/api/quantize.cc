#include "narrow/quantize.h"

#include "api/guard.h"
#include "pipeline/quantize.h"

namespace narrow {

Result<QuantizePlan> plan_quantization(const QuantizeOptions& options) {
  return api::guarded([&] { return pipeline::plan_quantize(options); });
}

Result<QuantizeReport> quantize(const QuantizeOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return pipeline::run_quantize(options, progress); });
}

}  // namespace narrow

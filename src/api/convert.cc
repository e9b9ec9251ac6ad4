#include "narrow/convert.h"

#include "api/guard.h"
#include "pipeline/convert.h"

namespace narrow {

Result<ConvertReport> convert(const ConvertOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return pipeline::run_convert(options, progress); });
}

}  // namespace narrow

// The job behind `narrow convert`: between Hugging Face folders and GGUF, in float types or as stored.
#pragma once

#include "narrow/convert.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

Result<ConvertReport> run_convert(const ConvertOptions& options, ProgressSink& progress);

}  // namespace narrow::pipeline

// The job behind `narrow convert`: between Hugging Face folders and GGUF, in float types or as stored.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "model/source.h"
#include "narrow/convert.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

Result<ConvertReport> run_convert(const ConvertOptions& options, ProgressSink& progress);

// The same of a model that is open, and may be changed in memory (model/overlay.h). `recipe`: what made it,
// for the file's provenance.
Result<ConvertReport> convert_source(const std::shared_ptr<const model::ModelSource>& source,
                                     const ConvertOptions& options, const nlohmann::ordered_json& recipe,
                                     ProgressSink& progress);

}  // namespace narrow::pipeline

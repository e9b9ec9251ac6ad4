// Options of training as JSON: recipe files, checkpoints and the record in output files.
#pragma once

#include <nlohmann/json.hpp>

#include "narrow/train.h"

namespace narrow::recipe {

// Every option by its name (narrow/train_fields.h). With `result_only`, those alone that decide the result:
// without output, checkpoint, metrics, report, resume and how often something is looked at or kept.
nlohmann::ordered_json to_json(const QatOptions& options, bool result_only = false);
nlohmann::ordered_json to_json(const FinetuneOptions& options, bool result_only = false);
nlohmann::ordered_json to_json(const PretrainOptions& options, bool result_only = false);

}  // namespace narrow::recipe

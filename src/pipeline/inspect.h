// What is in a model file, and what one tensor's values look like.
#pragma once

#include "narrow/inspect.h"

namespace narrow::pipeline {

Result<InspectReport> inspect_model(const std::filesystem::path& model);
Result<TensorStatistics> inspect_tensor(const std::filesystem::path& model, const std::string& tensor,
                                        int bins, const std::vector<std::string>& types,
                                        const std::filesystem::path& reference);

}  // namespace narrow::pipeline

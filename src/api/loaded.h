// A model opened for running, with its tokenizer: what evaluate and generate both start from.
#pragma once

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "model/source.h"
#include "pipeline/tokenizer.h"
#include "runtime/session.h"

namespace narrow::api {

struct OpenedModel {
  std::shared_ptr<const model::ModelSource> source;
  std::shared_ptr<const runtime::LoadedModel> weights;
};
Result<OpenedModel> open_model(const std::filesystem::path& path, const runtime::LoadOptions& options = {});

using pipeline::open_tokenizer;

// Stored bytes of all tensors * 8 / number of weights.
double bits_per_weight(const model::ModelSource& source);

}  // namespace narrow::api

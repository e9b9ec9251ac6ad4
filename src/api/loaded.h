// A model opened for running, with its tokenizer: what evaluate and generate both start from.
#pragma once

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "model/source.h"
#include "runtime/session.h"
#include "text/tokenizer.h"

namespace narrow::api {

struct OpenedModel {
  std::shared_ptr<const model::ModelSource> source;
  std::shared_ptr<const runtime::LoadedModel> weights;
};
Result<OpenedModel> open_model(const std::filesystem::path& path, const runtime::LoadOptions& options = {});

// The tokenizer in `path` (a model folder or GGUF, a tokenizer.json or a tokenizer.model). A vocabulary
// larger than the model's `n_vocab` is kCorrupt: it belongs to another model.
Result<std::shared_ptr<const text::Tokenizer>> open_tokenizer(const std::filesystem::path& path,
                                                              std::int64_t n_vocab);

// Stored bytes of all tensors * 8 / number of weights.
double bits_per_weight(const model::ModelSource& source);

}  // namespace narrow::api

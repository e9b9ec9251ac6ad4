// The tokenizer of a model, checked against it.
#pragma once

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "text/tokenizer.h"

namespace narrow::pipeline {

// The tokenizer in `path` (a model folder or GGUF, a tokenizer.json or a tokenizer.model). A vocabulary
// larger than the model's `n_vocab` is kCorrupt: it belongs to another model.
Result<std::shared_ptr<const text::Tokenizer>> open_tokenizer(const std::filesystem::path& path,
                                                              std::int64_t n_vocab);

}  // namespace narrow::pipeline

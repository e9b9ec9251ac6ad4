// A model that does not exist yet: what its config.json and a tokenizer say it is.
#pragma once

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "model/source.h"
#include "text/tokenizer.h"

namespace narrow::recipe {

struct FreshModel {
  std::shared_ptr<const model::ModelSource>
      source;  // as a GGUF: all weights f32 and zero, the tokenizer in it
  std::shared_ptr<const text::Tokenizer> tokenizer;
};

// `config`: a Hugging Face config.json or the folder with one; `tokenizer`: a folder, GGUF, tokenizer.json or
// tokenizer.model, empty: beside config.json. kCorrupt: a vocabulary larger than config.json's.
Result<FreshModel> fresh_model(const std::filesystem::path& config, const std::filesystem::path& tokenizer);

}  // namespace narrow::recipe

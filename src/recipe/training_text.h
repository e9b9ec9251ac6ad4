// Training texts -> token documents and the windows made of them, through the model's own tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "narrow/progress.h"
#include "text/tokenizer.h"
#include "train/dataset.h"

namespace narrow::recipe {

// The documents of `files` (pipeline/text_reader.h says which files). Of conversations only the assistant's
// tokens count; a text ends with EOS where the model has one, a conversation with what its template ends
// with. kInvalidArgument: no file, or no token in all of them; errors name file and line.
Result<std::vector<train::Document>> training_documents(const std::vector<std::filesystem::path>& files,
                                                        const text::Tokenizer& tokenizer,
                                                        const std::filesystem::path& model,
                                                        ProgressSink& progress);

struct TrainingTextOptions {
  std::vector<std::filesystem::path> files;
  std::int64_t n_ctx = 512;
  std::int64_t validation_windows = 16;
  std::uint64_t seed = 0;
};

// Opens the tokenizer in `model` (folder or GGUF), reads, cuts, and notes what was there and what is used.
// Windows are no longer than the model's context.
Result<train::Dataset> training_data(const TrainingTextOptions& options, const std::filesystem::path& model,
                                     const model::ModelConfig& config, ProgressSink& progress);
// The same with a tokenizer that is open already.
Result<train::Dataset> training_data(const TrainingTextOptions& options, const text::Tokenizer& tokenizer,
                                     const std::filesystem::path& model, const model::ModelConfig& config,
                                     ProgressSink& progress);

}  // namespace narrow::recipe

#include "recipe/training_text.h"

#include <algorithm>

#include "pipeline/text_reader.h"
#include "pipeline/tokenizer.h"

namespace narrow::recipe {

Result<std::vector<train::Document>> training_documents(const std::vector<std::filesystem::path>& files,
                                                        const text::Tokenizer& tokenizer,
                                                        const std::filesystem::path& model,
                                                        ProgressSink& progress) {
  if (files.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "no text to train on: give files with --text");
  }
  pipeline::TextReader reader(tokenizer, model, progress, {true, "train"});
  const std::optional<std::int32_t> eos = tokenizer.spec().eos;
  std::vector<train::Document> out;
  for (const std::filesystem::path& file : files) {
    NARROW_ASSIGN(auto documents, reader.read(file));
    std::size_t tokens = 0;
    for (pipeline::TokenDocument& d : documents) {
      if (d.ids.empty()) continue;
      tokens += d.ids.size();
      train::Document& document = out.emplace_back();
      if (d.conversation) document.counts = std::move(d.answers);
      document.ids = std::move(d.ids);
      if (!d.conversation && eos) document.ids.push_back(*eos);
    }
    if (tokens == 0) {
      return make_error(ErrorCode::kInvalidArgument, "{}: no text to train on: it has no token at all",
                        file.string());
    }
  }
  return out;
}

Result<train::Dataset> training_data(const TrainingTextOptions& options, const text::Tokenizer& tokenizer,
                                     const std::filesystem::path& model, const model::ModelConfig& config,
                                     ProgressSink& progress) {
  train::DatasetOptions cut;
  cut.n_ctx = options.n_ctx;
  cut.n_vocab = config.n_vocab;
  cut.validation_windows = options.validation_windows;
  cut.seed = options.seed;
  if (tokenizer.spec().add_bos) cut.bos = tokenizer.spec().bos;
  if (config.n_ctx_train > 0 && cut.n_ctx > config.n_ctx_train) {
    cut.n_ctx = config.n_ctx_train;
    progress.note(
        fmt::format("windows of {} tokens instead of {}: the model's context", cut.n_ctx, options.n_ctx));
  }
  NARROW_ASSIGN(const auto documents, training_documents(options.files, tokenizer, model, progress));
  NARROW_ASSIGN(train::Dataset data, train::Dataset::create(documents, cut));
  progress.note(
      fmt::format("text: {} tokens in {} documents; {} windows of {} to train on, {} held out, {} tokens "
                  "left out",
                  data.text_tokens(), documents.size(), data.training_windows(), data.n_ctx(),
                  data.validation_windows(), data.dropped_tokens()));
  return data;
}

Result<train::Dataset> training_data(const TrainingTextOptions& options, const std::filesystem::path& model,
                                     const model::ModelConfig& config, ProgressSink& progress) {
  NARROW_ASSIGN(const auto tokenizer, pipeline::open_tokenizer(model, config.n_vocab));
  return training_data(options, *tokenizer, model, config, progress);
}

}  // namespace narrow::recipe

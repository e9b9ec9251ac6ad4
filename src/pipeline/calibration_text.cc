#include "pipeline/calibration_text.h"

#include "pipeline/text_reader.h"
#include "pipeline/tokenizer.h"

namespace narrow::pipeline {

Result<calib::CutTexts> calibration_text(const CalibrationOptions& options, const model::ModelSource& source,
                                         ProgressSink& progress) {
  const model::ModelConfig& config = source.config();
  NARROW_ASSIGN(const auto tokenizer, open_tokenizer(source.path(), config.n_vocab));
  calib::CutOptions cut;
  cut.n_ctx = options.n_ctx;
  cut.max_tokens = options.max_tokens;
  if (tokenizer->spec().add_bos) cut.bos = tokenizer->spec().bos;
  // Lengths that no model could have are cut_texts()'s to refuse.
  if (cut.n_ctx > config.n_ctx_train && cut.n_ctx <= calib::kMaxWindow) {
    cut.n_ctx = config.n_ctx_train;
    progress.note(
        fmt::format("windows of {} tokens instead of {}: the model's context", cut.n_ctx, options.n_ctx));
  }
  TextReader reader(*tokenizer, source.path(), progress);
  std::vector<calib::TokenText> texts;
  for (const std::filesystem::path& file : options.texts) {
    NARROW_ASSIGN(auto documents, reader.read(file));
    calib::TokenText& text = texts.emplace_back();
    text.name = file.filename().string();
    for (TokenDocument& d : documents) text.documents.push_back(std::move(d.ids));
  }
  return calib::cut_texts(texts, cut);
}

Result<calib::TokenWindows> calibration_windows(const CalibrationOptions& options,
                                                const model::ModelSource& source, ProgressSink& progress) {
  NARROW_ASSIGN(calib::CutTexts cut, calibration_text(options, source, progress));
  progress.note(calib::describe(cut, options.max_tokens));
  return std::move(cut.windows);
}

}  // namespace narrow::pipeline

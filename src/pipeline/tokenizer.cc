#include "pipeline/tokenizer.h"

#include "io/gguf/reader.h"
#include "io/tokenizer/tokenizer_files.h"

namespace narrow::pipeline {

Result<std::shared_ptr<const text::Tokenizer>> open_tokenizer(const std::filesystem::path& path,
                                                              std::int64_t n_vocab) {
  std::error_code ec;
  const bool model = std::filesystem::is_directory(path, ec) || io::gguf::Reader::is_gguf(path);
  NARROW_ASSIGN(text::TokenizerSpec spec,
                model ? io::tokenizer_spec_from_model(path) : io::tokenizer_spec_from_file(path));
  NARROW_ASSIGN(auto tokenizer, text::Tokenizer::create(std::move(spec)));
  if (static_cast<std::int64_t>(tokenizer->vocab_size()) > n_vocab) {
    return make_error(
        ErrorCode::kCorrupt,
        "{}: the tokenizer has {} tokens, but the model's embedding only {} rows: it belongs to another "
        "model",
        path.string(), tokenizer->vocab_size(), n_vocab);
  }
  return tokenizer;
}

}  // namespace narrow::pipeline

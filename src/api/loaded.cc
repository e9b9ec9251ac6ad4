#include "api/loaded.h"

#include "io/gguf/reader.h"
#include "io/tokenizer/tokenizer_files.h"

namespace narrow::api {

Result<OpenedModel> open_model(const std::filesystem::path& path, const runtime::LoadOptions& options) {
  OpenedModel m;
  NARROW_ASSIGN(m.source, model::ModelSource::open(path));
  NARROW_ASSIGN(m.weights, runtime::LoadedModel::load(m.source, options));
  return m;
}

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

double bits_per_weight(const model::ModelSource& source) {
  double bits = 0, weights = 0;
  for (const TensorInfo& t : source.tensors()) {
    bits += 8.0 * static_cast<double>(t.bytes());
    weights += static_cast<double>(t.shape.elements());
  }
  return weights > 0 ? bits / weights : 0;
}

}  // namespace narrow::api

// Text files -> token documents, through a model's own tokenizer and chat template.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/hf_config/hf_folder.h"
#include "narrow/progress.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace narrow::pipeline {

struct TokenDocument {
  std::vector<std::int32_t> ids;  // without BOS
  // With TextReaderOptions::mark_answers, one per id: 1 for the tokens of assistant turns of a conversation
  // (with the token that ends the turn) and for all of other texts.
  std::vector<std::uint8_t> answers;
  bool conversation = false;
};

struct TextReaderOptions {
  bool mark_answers = false;
  std::string purpose = "calibrate";  // "the model has no chat template: <purpose> it on plain text"
};

// A .jsonl file has a conversation per line, {"messages": [{"role": ..., "content": ...}, ...]}, or {"text":
// "..."}; other files are plain UTF-8 text, in which special tokens are no more than text. Conversations that
// the template refuses are left out, with a note. Errors name the file and, in .jsonl, the line.
class TextReader {
 public:
  // `model` is for messages. Tokenizer, path and progress must outlive the reader.
  TextReader(const text::Tokenizer& tokenizer, std::filesystem::path model, ProgressSink& progress,
             TextReaderOptions options = {});

  Result<std::vector<TokenDocument>> read(const std::filesystem::path& file);

 private:
  using Documents = std::vector<TokenDocument>;
  struct Refusals {
    std::size_t count = 0;
    std::string reason;  // the first one's
  };
  Status plain(std::string_view text, Documents& out);
  Status lines(const std::string& file, std::string_view text, Documents& out);
  Status conversation(const io::Json& j, const std::string& where, Documents& out, Refusals& refused);
  // Ids of a rendered conversation, or a reason to leave it out.
  Result<TokenDocument> tokens_of(const text::ChatRenderOptions& messages, const std::string& rendered);
  Status mark_answers(const text::ChatRenderOptions& messages, const std::string& rendered,
                      TokenDocument& document);
  Status open_template();

  const text::Tokenizer& tokenizer_;
  std::filesystem::path model_;
  ProgressSink& progress_;
  TextReaderOptions options_;
  std::optional<text::ChatTemplate> template_;
};

}  // namespace narrow::pipeline

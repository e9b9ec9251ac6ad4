// Text to token ids and back: byte-level BPE, SentencePiece-style BPE with byte fallback, unigram.
// Sources: Hugging Face tokenizers (tokenizer.json), SentencePiece (Kudo & Richardson 2018), GGUF's
// tokenizer.ggml.* keys.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_spec.h"

namespace narrow::text {

using TokenId = std::int32_t;

struct EncodeTextOptions {
  bool add_special = true;    // BOS/EOS (the template of the post-processor) as the model's files say
  bool parse_special = true;  // special tokens written in the text become their ids; false: plain text
};

class Tokenizer {
 public:
  // Checks the spec (ids in range, merges that name known tokens, patterns that compile); kCorrupt otherwise.
  static Result<std::shared_ptr<const Tokenizer>> create(TokenizerSpec spec);
  virtual ~Tokenizer() = default;

  // Invalid UTF-8 is replaced by U+FFFD, as the tokenizers library does.
  virtual Result<std::vector<TokenId>> encode(std::string_view text,
                                              const EncodeTextOptions& options = {}) const = 0;
  // skip_special: leave control tokens out. Ids out of range are kInvalidArgument.
  virtual Result<std::string> decode(const std::vector<TokenId>& ids, bool skip_special = true) const = 0;
  // The bytes that this token stands for, before any clean-up of leading spaces.
  virtual std::string token_bytes(TokenId id) const = 0;

  virtual const TokenizerSpec& spec() const = 0;
  std::size_t vocab_size() const { return spec().tokens.size(); }
  virtual std::optional<TokenId> find(std::string_view token) const = 0;  // by stored text
  // True for ids that end generation (EOS, EOT and other end tokens the files name).
  virtual bool is_end(TokenId id) const = 0;
  // True for ids that decode(skip_special) leaves out.
  virtual bool is_special(TokenId) const { return false; }
};

// transformers' clean_up_tokenization_spaces: "a ." -> "a.", "do n't" -> "don't" and so on. decode() never
// does it; callers that want it look at spec().clean_up_spaces.
std::string clean_up_spaces(std::string text);

// Decodes a stream of ids; never returns part of a UTF-8 sequence. A sequence that can no longer become valid
// comes out as U+FFFD.
class StreamDecoder {
 public:
  // at_start: the ids begin a text, so that the dummy space of SentencePiece models is dropped, as decode()
  // does; false: they continue one, and a leading space is theirs.
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> t, bool skip_special = true, bool at_start = true);
  std::string push(TokenId id);  // text that became complete, maybe empty
  std::string flush();           // what is left at the end

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_, at_start_;
  bool first_;
  std::string pending_;
};

}  // namespace narrow::text

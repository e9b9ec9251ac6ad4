// The three models that turn one word into token ids. They share the vocabulary and are immutable, so that
// threads may use them at the same time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_spec.h"

namespace narrow::text {

using Vocab = std::unordered_map<std::string_view, std::int32_t>;  // keys live in the spec

class WordModel {
 public:
  virtual ~WordModel() = default;
  virtual void encode(std::string_view word, std::vector<std::int32_t>& out) const = 0;
  // Places where `word` may be cut without changing the result, for caching; ends with the word's own end.
  virtual void cut(std::string_view word, std::vector<std::size_t>& ends) const {
    ends.push_back(word.size());
  }
};

// `spec` and `vocab` must outlive the model. kCorrupt for merges, scores or ids that name no token.
Result<std::unique_ptr<WordModel>> make_bpe_model(const TokenizerSpec& spec, const Vocab& vocab);
Result<std::unique_ptr<WordModel>> make_unigram_model(const TokenizerSpec& spec, const Vocab& vocab);

// What becomes of characters outside the vocabulary: byte tokens, else the unknown token, else nothing.
class Fallback {
 public:
  Fallback(const TokenizerSpec& spec, const Vocab& vocab);
  // `after_unknown`: the id before in this word came from the unknown token (and may absorb this one).
  void emit(std::string_view text, bool& after_unknown, std::vector<std::int32_t>& out) const;
  bool drops() const { return !bytes_ok_ && unk_ < 0; }

 private:
  std::vector<std::int32_t> bytes_;
  bool bytes_ok_ = false, fuse_ = false;
  std::int32_t unk_ = -1;
};

}  // namespace narrow::text

#include "text/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "text/tokenizer_added.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_model.h"
#include "text/tokenizer_normalizer.h"
#include "text/tokenizer_pre.h"
#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

// Ids of the words seen in one call: most words of a text repeat.
class WordCache {
 public:
  WordCache(const WordModel& model, std::string_view text) : model_(model) {
    map_.reserve(text.size() / 64 + 16);
  }
  void encode(std::string_view word, std::vector<TokenId>& out) {
    if (word.size() > kMaxWord) {
      model_.encode(word, out);
      return;
    }
    const auto [it, is_new] = map_.try_emplace(std::string(word));
    if (is_new) model_.encode(word, it->second);
    out.insert(out.end(), it->second.begin(), it->second.end());
  }

 private:
  static constexpr std::size_t kMaxWord = 64;  // longer ones hardly repeat
  const WordModel& model_;
  std::unordered_map<std::string, std::vector<TokenId>> map_;
};

class TokenizerImpl final : public Tokenizer {
 public:
  explicit TokenizerImpl(TokenizerSpec spec) : spec_(std::move(spec)) {}

  Status init() {
    NARROW_TRY(check());
    vocab_.reserve(spec_.tokens.size());
    for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
      if (!spec_.tokens[i].empty()) vocab_.try_emplace(spec_.tokens[i], static_cast<TokenId>(i));
    }
    NARROW_ASSIGN(normalizer_, Normalizer::create(spec_.normalizer));
    NARROW_ASSIGN(pre_tokenizer_, PreTokenizer::create(spec_.pre_tokenizer));
    NARROW_ASSIGN(decoder_, DecoderChain::create(spec_.decoder));
    special_.resize(spec_.tokens.size());
    end_.resize(spec_.tokens.size());
    for (const AddedToken& a : spec_.added) {
      const std::string& token = spec_.tokens[static_cast<std::size_t>(a.id)];
      special_[static_cast<std::size_t>(a.id)] = a.special;
      if (a.normalized) {
        NARROW_ASSIGN(const std::string normalized, normalizer_.apply(sanitize_utf8(token)));
        added_normalized_.add(normalized, a);
      } else {
        added_.add(token, a);
      }
    }
    for (const TokenId id : spec_.end_tokens) end_[static_cast<std::size_t>(id)] = true;
    NARROW_ASSIGN(model_, spec_.kind == TokenizerKind::kUnigram ? make_unigram_model(spec_, vocab_)
                                                                : make_bpe_model(spec_, vocab_));
    return {};
  }

  Result<std::vector<TokenId>> encode(std::string_view raw, const EncodeTextOptions& options) const override {
    std::vector<TokenId> ids;
    if (options.add_special && spec_.add_bos) ids.push_back(*spec_.bos);
    const std::string clean = is_valid_utf8(raw) ? std::string() : sanitize_utf8(raw);
    const std::string_view text = clean.empty() ? raw : std::string_view(clean);
    ids.reserve(text.size() / 3 + 8);
    WordCache cache(*model_, text);
    std::vector<AddedMatcher::Segment> segments, inner;
    added_.split(text, options.parse_special, segments);
    for (const AddedMatcher::Segment& s : segments) {
      if (s.id >= 0) {
        ids.push_back(s.id);
        continue;
      }
      NARROW_ASSIGN(const std::string normalized, normalizer_.apply(text.substr(s.begin, s.end - s.begin)));
      inner.clear();
      added_normalized_.split(normalized, options.parse_special, inner);
      for (const AddedMatcher::Segment& t : inner) {
        if (t.id >= 0) {
          ids.push_back(t.id);
        } else {
          NARROW_TRY(encode_words(normalized.substr(t.begin, t.end - t.begin), s.begin == 0 && t.begin == 0,
                                  cache, ids));
        }
      }
    }
    if (options.add_special && spec_.add_eos) ids.push_back(*spec_.eos);
    return ids;
  }

  Result<std::string> decode(const std::vector<TokenId>& ids, bool skip_special) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const TokenId id : ids) {
      if (!in_range(id)) {
        return make_error(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary of {} tokens",
                          id, spec_.tokens.size());
      }
      if (skip_special && special_[static_cast<std::size_t>(id)]) continue;
      tokens.push_back(spec_.tokens[static_cast<std::size_t>(id)]);
    }
    return decoder_.run(std::move(tokens));
  }

  std::string token_bytes(TokenId id) const override {
    if (!in_range(id)) return {};
    std::string text = spec_.tokens[static_cast<std::size_t>(id)];
    if (spec_.kind == TokenizerKind::kByteBpe) {
      std::string bytes;
      return printable_to_bytes(text, bytes) ? bytes : text;
    }
    const int b = spec_.byte_fallback ? parse_byte_token(text) : -1;
    if (b >= 0) return std::string(1, static_cast<char>(b));
    replace_all(text, kMetaChar, " ");
    return text;
  }

  const TokenizerSpec& spec() const override { return spec_; }
  std::optional<TokenId> find(std::string_view token) const override {
    const auto it = vocab_.find(token);
    return it == vocab_.end() ? std::nullopt : std::optional<TokenId>(it->second);
  }
  bool is_end(TokenId id) const override { return in_range(id) && end_[static_cast<std::size_t>(id)]; }
  bool is_special(TokenId id) const override {
    return in_range(id) && special_[static_cast<std::size_t>(id)];
  }

 private:
  bool in_range(TokenId id) const { return id >= 0 && static_cast<std::size_t>(id) < spec_.tokens.size(); }

  Status check() const {
    const std::size_t n = spec_.tokens.size();
    if (n == 0) return make_error(ErrorCode::kCorrupt, "the tokenizer has no tokens");
    if (spec_.types.size() != n) {
      return make_error(ErrorCode::kCorrupt, "the tokenizer has {} token types for {} tokens",
                        spec_.types.size(), n);
    }
    const std::pair<const char*, std::optional<TokenId>> named[] = {
        {"bos", spec_.bos}, {"eos", spec_.eos}, {"unk", spec_.unk},  {"pad", spec_.pad},
        {"eot", spec_.eot}, {"sep", spec_.sep}, {"mask", spec_.mask}};
    for (const auto& [name, id] : named) {
      if (id && !in_range(*id)) {
        return make_error(ErrorCode::kCorrupt, "the tokenizer's {} id {} is outside its {} tokens", name, *id,
                          n);
      }
    }
    for (const AddedToken& a : spec_.added) {
      if (!in_range(a.id)) {
        return make_error(ErrorCode::kCorrupt, "added token id {} is outside the tokenizer's {} tokens", a.id,
                          n);
      }
    }
    for (const TokenId id : spec_.end_tokens) {
      if (!in_range(id)) {
        return make_error(ErrorCode::kCorrupt, "end token id {} is outside the tokenizer's {} tokens", id, n);
      }
    }
    if (spec_.add_bos && !spec_.bos)
      return make_error(ErrorCode::kCorrupt, "the tokenizer adds a BOS that it lacks");
    if (spec_.add_eos && !spec_.eos)
      return make_error(ErrorCode::kCorrupt, "the tokenizer adds an EOS that it lacks");
    return {};
  }

  Status encode_words(std::string text, bool at_start, WordCache& cache, std::vector<TokenId>& ids) const {
    std::vector<Span> words;
    std::vector<std::size_t> ends;
    NARROW_TRY(pre_tokenizer_.split(text, at_start, words));
    const std::string_view view = text;
    for (const Span& w : words) {
      const std::string_view word = view.substr(w.begin, w.end - w.begin);
      ends.clear();
      model_->cut(word, ends);
      std::size_t begin = 0;
      for (const std::size_t end : ends) {
        cache.encode(word.substr(begin, end - begin), ids);
        begin = end;
      }
    }
    return {};
  }

  const TokenizerSpec spec_;
  std::unordered_map<std::string_view, TokenId> vocab_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  DecoderChain decoder_;
  AddedMatcher added_, added_normalized_;
  std::vector<bool> special_, end_;
  std::unique_ptr<WordModel> model_;
};

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::create(TokenizerSpec spec) {
  auto t = std::make_shared<TokenizerImpl>(std::move(spec));
  NARROW_TRY(t->init());
  return std::shared_ptr<const Tokenizer>(std::move(t));
}

std::string clean_up_spaces(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
  return text;
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> t, bool skip_special, bool at_start)
    : tokenizer_(std::move(t)), skip_special_(skip_special), at_start_(at_start), first_(at_start) {}

std::string StreamDecoder::push(TokenId id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  std::string bytes = tokenizer_->token_bytes(id);
  if (first_ && tokenizer_->spec().decode_strips_space && bytes.starts_with(' ')) bytes.erase(0, 1);
  first_ = false;
  pending_ += bytes;
  std::string out;
  std::size_t i = 0;
  while (i < pending_.size()) {
    std::size_t bad = 1;
    bool open = false;
    const std::size_t n = utf8_length(pending_, i, &bad, &open);
    if (n == 0 && open) break;
    out.append(n ? std::string_view(pending_).substr(i, n) : kReplacementChar);
    i += n ? n : bad;
  }
  pending_.erase(0, i);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out = sanitize_utf8(pending_);
  pending_.clear();
  first_ = at_start_;
  return out;
}

}  // namespace narrow::text

// Byte-pair encoding (Sennrich et al. 2016) over bytes or characters: the pair of the lowest rank, leftmost
// first, is merged until none is left. A linked list and a heap keep a word of n symbols at O(n log n).
#include <algorithm>
#include <cmath>
#include <queue>

#include "text/tokenizer_model.h"
#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

// (left id, right id) -> rank and merged id; open addressing, because this lookup is the inner loop.
class PairMap {
 public:
  struct Entry {
    std::uint64_t key = kEmpty;
    std::uint32_t rank = 0;
    std::int32_t id = -1;
  };
  explicit PairMap(std::size_t n) {
    std::size_t size = 16;
    while (size < n * 2) size *= 2;
    table_.resize(size);
  }
  static std::uint64_t key(std::int32_t a, std::int32_t b) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 | static_cast<std::uint32_t>(b);
  }
  void set(std::uint64_t k, std::uint32_t rank, std::int32_t id) { *slot(*this, k) = {k, rank, id}; }
  const Entry* find(std::uint64_t k) const {
    const Entry* e = slot(*this, k);
    return e->key == k ? e : nullptr;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~0ull;
  template <class Self>
  static auto slot(Self& self, std::uint64_t k) -> decltype(self.table_.data()) {
    const std::size_t mask = self.table_.size() - 1;
    std::uint64_t h = k * 0x9e3779b97f4a7c15ull;
    std::size_t i = static_cast<std::size_t>(h ^ h >> 32) & mask;
    while (self.table_[i].key != kEmpty && self.table_[i].key != k) i = (i + 1) & mask;
    return &self.table_[i];
  }
  std::vector<Entry> table_;
};

struct Symbol {
  std::int32_t prev, next;    // -1: none
  std::uint32_t begin, size;  // size 0: merged away
  std::int32_t id;            // -1: outside the vocabulary
};

struct Candidate {
  std::uint32_t rank;
  std::int32_t left, right;
  std::uint32_t size;  // of both; a later merge changes it and makes this candidate stale
  std::int32_t id;
};

struct Worse {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }
};

// What merging may make. Unused pieces are padding; SentencePiece splits them up again.
bool is_piece(TokenType t) { return t == TokenType::kNormal || t == TokenType::kUserDefined; }

class BpeModel final : public WordModel {
 public:
  BpeModel(const TokenizerSpec& spec, const Vocab& vocab)
      : vocab_(vocab),
        fallback_(spec, vocab),
        pairs_(spec.merges.size()),
        bytes_(spec.kind == TokenizerKind::kByteBpe),
        by_score_(spec.kind == TokenizerKind::kSpmBpe && spec.merges.empty()),
        ignore_merges_(spec.ignore_merges) {}

  Status init(const TokenizerSpec& spec) {
    if (bytes_) {
      for (int b = 0; b < 256; ++b) {
        const auto it = vocab_.find(byte_to_printable(static_cast<std::uint8_t>(b)));
        byte_ids_[b] = it == vocab_.end() ? -1 : it->second;
      }
    }
    if (by_score_) {
      NARROW_TRY(rank_scores(spec));
    } else {
      NARROW_TRY(rank_merges(spec));
    }
    if (!bytes_) find_inner_spaces(spec);
    return {};
  }

  void encode(std::string_view word, std::vector<std::int32_t>& out) const override {
    if (ignore_merges_) {
      const auto it = bytes_ ? vocab_.find(bytes_to_printable(word)) : vocab_.find(word);
      if (it != vocab_.end()) {
        out.push_back(it->second);
        return;
      }
    }
    static thread_local std::vector<Symbol> symbols;
    static thread_local std::vector<Candidate> storage;
    fill(word, symbols);
    storage.clear();
    std::priority_queue<Candidate, std::vector<Candidate>, Worse> heap(Worse(), std::move(storage));
    const auto consider = [&](std::int32_t l, std::int32_t r) {
      if (l < 0 || r < 0) return;
      const Symbol &a = symbols[static_cast<std::size_t>(l)], &b = symbols[static_cast<std::size_t>(r)];
      Candidate c{0, l, r, a.size + b.size, -1};
      if (find_pair(word, a, b, c.rank, c.id)) heap.push(c);
    };
    for (std::size_t i = 1; i < symbols.size(); ++i) {
      consider(static_cast<std::int32_t>(i) - 1, static_cast<std::int32_t>(i));
    }
    while (!heap.empty()) {
      const Candidate c = heap.top();
      heap.pop();
      Symbol &a = symbols[static_cast<std::size_t>(c.left)], &b = symbols[static_cast<std::size_t>(c.right)];
      if (a.size == 0 || b.size == 0 || a.size + b.size != c.size) continue;
      a.size = c.size;
      a.id = c.id;
      a.next = b.next;
      b.size = 0;
      if (b.next >= 0) symbols[static_cast<std::size_t>(b.next)].prev = c.left;
      consider(a.prev, c.left);
      consider(c.left, a.next);
    }
    bool after_unknown = false;
    for (const Symbol& s : symbols) {
      if (s.size == 0) continue;
      if (s.id >= 0) {
        out.push_back(s.id);
        after_unknown = false;
      } else {
        fallback_.emit(word.substr(s.begin, s.size), after_unknown, out);
      }
    }
  }

  void cut(std::string_view word, std::vector<std::size_t>& ends) const override {
    // A space that follows a character which no token joins to a space is a border that no merge crosses.
    if (!bytes_) {
      std::size_t last = 0;  // start of the character before
      for (std::size_t i = 0; i < word.size(); i += utf8_lead_length(static_cast<unsigned char>(word[i]))) {
        if (i > 0 && word.substr(i, kMetaChar.size()) == kMetaChar &&
            !joined_to_space_.contains(decode_utf8_at(word, last))) {
          ends.push_back(i);
        }
        last = i;
      }
    }
    ends.push_back(word.size());
  }

 private:
  Status rank_merges(const TokenizerSpec& spec) {
    std::string joined;
    for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
      const auto& [left, right] = spec.merges[rank];
      joined = left + right;
      const auto a = vocab_.find(left), b = vocab_.find(right), c = vocab_.find(joined);
      if (a == vocab_.end() || b == vocab_.end() || c == vocab_.end()) {
        return make_error(ErrorCode::kCorrupt,
                          "tokenizer merge {} ('{}' + '{}') names a token that is not there", rank, left,
                          right);
      }
      pairs_.set(PairMap::key(a->second, b->second), static_cast<std::uint32_t>(rank), c->second);
    }
    return {};
  }

  // Equal scores share a rank, so that the leftmost of them goes first.
  Status rank_scores(const TokenizerSpec& spec) {
    if (spec.scores.size() != spec.tokens.size()) {
      return make_error(ErrorCode::kCorrupt, "tokenizer has {} scores for {} tokens", spec.scores.size(),
                        spec.tokens.size());
    }
    std::vector<float> sorted;
    for (const float s : spec.scores) {
      if (!std::isfinite(s))
        return make_error(ErrorCode::kCorrupt, "tokenizer has a score that is not finite");
    }
    sorted = spec.scores;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    ranks_.resize(spec.tokens.size());
    for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
      const auto it = std::lower_bound(sorted.begin(), sorted.end(), spec.scores[i], std::greater<>());
      ranks_[i] = is_piece(spec.types[i]) ? static_cast<std::uint32_t>(it - sorted.begin()) : kNoRank;
    }
    return {};
  }

  void find_inner_spaces(const TokenizerSpec& spec) {
    for (const std::string& token : spec.tokens) {
      for (std::size_t at = token.find(kMetaChar, 1); at != std::string::npos;
           at = token.find(kMetaChar, at + 1)) {
        if (!is_valid_utf8(token)) break;
        std::size_t p = at - 1;
        while (p > 0 && (static_cast<unsigned char>(token[p]) & 0xc0) == 0x80) --p;
        joined_to_space_.insert(decode_utf8_at(token, p));
      }
    }
  }

  void fill(std::string_view word, std::vector<Symbol>& symbols) const {
    symbols.clear();
    for (std::size_t i = 0; i < word.size();) {
      const std::size_t n = bytes_ ? 1 : utf8_lead_length(static_cast<unsigned char>(word[i]));
      std::int32_t id = -1;
      if (bytes_) {
        id = byte_ids_[static_cast<unsigned char>(word[i])];
      } else if (const auto it = vocab_.find(word.substr(i, n)); it != vocab_.end()) {
        id = it->second;
      }
      // With nothing to stand for it, an unknown byte vanishes and its neighbours may merge.
      if (id >= 0 || !bytes_ || !fallback_.drops()) {
        const auto k = static_cast<std::int32_t>(symbols.size());
        symbols.push_back({k - 1, k + 1, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(n), id});
      }
      i += n;
    }
    if (!symbols.empty()) symbols.back().next = -1;
  }

  bool find_pair(std::string_view word, const Symbol& a, const Symbol& b, std::uint32_t& rank,
                 std::int32_t& id) const {
    if (by_score_) {
      const auto it = vocab_.find(word.substr(a.begin, a.size + b.size));
      if (it == vocab_.end()) return false;
      id = it->second;
      rank = ranks_[static_cast<std::size_t>(id)];
      return rank != kNoRank;
    }
    if (a.id < 0 || b.id < 0) return false;
    const PairMap::Entry* e = pairs_.find(PairMap::key(a.id, b.id));
    if (!e) return false;
    rank = e->rank;
    id = e->id;
    return true;
  }

  static constexpr std::uint32_t kNoRank = ~0u;
  const Vocab& vocab_;
  Fallback fallback_;
  PairMap pairs_;
  std::int32_t byte_ids_[256] = {};
  std::vector<std::uint32_t> ranks_;  // by token, when merging by score
  std::unordered_set<char32_t> joined_to_space_;
  bool bytes_, by_score_, ignore_merges_;
};

}  // namespace

Fallback::Fallback(const TokenizerSpec& spec, const Vocab& vocab) : fuse_(spec.fuse_unknown) {
  if (spec.unk && (spec.kind != TokenizerKind::kByteBpe || spec.unk_for_bytes)) unk_ = *spec.unk;
  if (!spec.byte_fallback) return;
  bytes_.resize(256, -1);
  bytes_ok_ = true;
  for (int b = 0; b < 256; ++b) {
    const auto it = vocab.find(byte_token(static_cast<std::uint8_t>(b)));
    if (it == vocab.end()) {
      bytes_ok_ = false;
    } else {
      bytes_[static_cast<std::size_t>(b)] = it->second;
    }
  }
}

void Fallback::emit(std::string_view text, bool& after_unknown, std::vector<std::int32_t>& out) const {
  if (bytes_ok_) {
    for (const char c : text) out.push_back(bytes_[static_cast<unsigned char>(c)]);
    after_unknown = false;
  } else if (unk_ >= 0) {
    if (!(fuse_ && after_unknown)) out.push_back(unk_);
    after_unknown = true;
  }
}

Result<std::unique_ptr<WordModel>> make_bpe_model(const TokenizerSpec& spec, const Vocab& vocab) {
  auto model = std::make_unique<BpeModel>(spec, vocab);
  NARROW_TRY(model->init(spec));
  return std::unique_ptr<WordModel>(std::move(model));
}

}  // namespace narrow::text

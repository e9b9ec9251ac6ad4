// Unigram language model (Kudo 2018): the segmentation of the highest total log probability, by Viterbi.
#include <algorithm>
#include <cmath>
#include <limits>

#include "text/tokenizer_model.h"
#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

constexpr double kUnknownPenalty = 10.0;  // below the worst piece, as SentencePiece has it

class UnigramModel final : public WordModel {
 public:
  UnigramModel(const TokenizerSpec& spec, const Vocab& vocab) : spec_(spec), fallback_(spec, vocab) {}

  Status init() {
    if (spec_.scores.size() != spec_.tokens.size()) {
      return make_error(ErrorCode::kCorrupt, "tokenizer has {} scores for {} tokens", spec_.scores.size(),
                        spec_.tokens.size());
    }
    double worst = std::numeric_limits<double>::max();
    for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
      if (!std::isfinite(spec_.scores[i])) {
        return make_error(ErrorCode::kCorrupt, "tokenizer has a score that is not finite (token {})", i);
      }
      const TokenType t = spec_.types[i];
      if (t != TokenType::kNormal && t != TokenType::kUserDefined) continue;
      if (t == TokenType::kNormal) worst = std::min(worst, static_cast<double>(spec_.scores[i]));
      if (!spec_.tokens[i].empty()) insert(spec_.tokens[i], static_cast<std::int32_t>(i));
    }
    unknown_score_ = (worst == std::numeric_limits<double>::max() ? 0.0 : worst) - kUnknownPenalty;
    return {};
  }

  void encode(std::string_view word, std::vector<std::int32_t>& out) const override {
    struct Best {
      double score = -std::numeric_limits<double>::infinity();
      std::size_t from = 0;
      std::int32_t id = -1;
    };
    std::vector<Best> best(word.size() + 1);
    best[0].score = 0;
    for (std::size_t i = 0; i < word.size();) {
      const std::size_t one = utf8_lead_length(static_cast<unsigned char>(word[i]));
      const double base = best[i].score;
      bool single = false;
      std::uint32_t node = 0;
      for (std::size_t j = i; j < word.size(); ++j) {
        node = child(node, static_cast<unsigned char>(word[j]));
        if (node == 0) break;
        const std::int32_t id = nodes_[node].id;
        if (id < 0) continue;
        single |= j + 1 - i == one;
        const bool user = spec_.types[static_cast<std::size_t>(id)] == TokenType::kUserDefined;
        const double score =
            base + (user ? 0.0 : static_cast<double>(spec_.scores[static_cast<std::size_t>(id)]));
        if (score > best[j + 1].score) best[j + 1] = {score, i, id};
      }
      if (!single && base + unknown_score_ > best[i + one].score)
        best[i + one] = {base + unknown_score_, i, -1};
      i += one;
    }
    std::vector<std::pair<std::size_t, std::size_t>> path;
    for (std::size_t end = word.size(); end > 0; end = best[end].from) path.push_back({best[end].from, end});
    // A run of unknown characters is one unknown piece.
    bool after_unknown = false;
    for (std::size_t k = path.size(); k-- > 0;) {
      const auto [from, end] = path[k];
      if (best[end].id >= 0) {
        out.push_back(best[end].id);
        after_unknown = false;
      } else {
        fallback_.emit(word.substr(from, end - from), after_unknown, out);
      }
    }
  }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;  // sorted by byte
    std::int32_t id = -1;
  };
  std::uint32_t child(std::uint32_t node, unsigned char c) const {
    const auto& list = nodes_[node].children;
    const auto it = std::lower_bound(list.begin(), list.end(), c,
                                     [](const auto& entry, unsigned char key) { return entry.first < key; });
    return it != list.end() && it->first == c ? it->second : 0;
  }
  void insert(std::string_view text, std::int32_t id) {
    std::uint32_t node = 0;
    for (const char ch : text) {
      const auto c = static_cast<unsigned char>(ch);
      std::uint32_t next = child(node, c);
      if (next == 0) {
        next = static_cast<std::uint32_t>(nodes_.size());
        nodes_.emplace_back();
        auto& list = nodes_[node].children;
        list.insert(std::upper_bound(list.begin(), list.end(), std::pair<unsigned char, std::uint32_t>{c, 0}),
                    {c, next});
      }
      node = next;
    }
    if (nodes_[node].id < 0) nodes_[node].id = id;
  }

  const TokenizerSpec& spec_;
  Fallback fallback_;
  std::vector<Node> nodes_{1};
  double unknown_score_ = 0;
};

}  // namespace

Result<std::unique_ptr<WordModel>> make_unigram_model(const TokenizerSpec& spec, const Vocab& vocab) {
  auto model = std::make_unique<UnigramModel>(spec, vocab);
  NARROW_TRY(model->init());
  return std::unique_ptr<WordModel>(std::move(model));
}

}  // namespace narrow::text

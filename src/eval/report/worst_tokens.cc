#include "eval/report/worst_tokens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace narrow::eval::report {
namespace {

constexpr std::size_t kPredictions = 3;
constexpr std::int64_t kTokensBefore = 32, kTokensAfter = 8;

std::vector<Prediction> most_likely(std::span<const float> logits) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const std::size_t n = std::min(kPredictions, ids.size());
  const auto at = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n), ids.end(),
                    [&](std::int32_t a, std::int32_t b) { return at(a) != at(b) ? at(a) > at(b) : a < b; });
  const double top = at(ids.front());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  std::vector<Prediction> out;
  for (std::size_t i = 0; i < n; ++i) {
    out.push_back({ids[i], std::exp(static_cast<double>(at(ids[i])) - top) / sum});
  }
  return out;
}

}  // namespace

void WorstTokens::observe(const ScoredPosition& p) {
  if (count_ == 0 || p.reference.empty()) return;
  if (worst_.size() == count_ && p.score.kl <= worst_.back().kl) return;
  WorstToken w;
  w.position = p.token;
  w.kl = p.score.kl;
  w.p = std::exp(-p.score.nll);
  w.reference_p = std::exp(-p.score.reference_nll);
  w.predicted = most_likely(p.logits);
  w.reference_predicted = most_likely(p.reference);
  const auto place =
      std::find_if(worst_.begin(), worst_.end(), [&](const WorstToken& o) { return o.kl < w.kl; });
  worst_.insert(place, std::move(w));
  if (worst_.size() > count_) worst_.pop_back();
}

std::vector<WorstToken> WorstTokens::take(std::span<const std::int32_t> tokens,
                                          const std::function<std::string(std::int32_t)>& token_bytes) const {
  const auto n = static_cast<std::int64_t>(tokens.size());
  const auto text_of = [&](std::int64_t begin, std::int64_t end) {
    std::string bytes;
    for (std::int64_t i = std::max<std::int64_t>(0, begin); i < std::min(n, end); ++i) {
      bytes += token_bytes(tokens[static_cast<std::size_t>(i)]);
    }
    return visible_text(bytes);
  };
  std::vector<WorstToken> out = worst_;
  for (WorstToken& w : out) {
    w.token = tokens[static_cast<std::size_t>(w.position)];
    w.before = text_of(w.position - kTokensBefore, w.position);
    w.text = text_of(w.position, w.position + 1);
    w.after = text_of(w.position + 1, w.position + 1 + kTokensAfter);
    for (const Prediction& p : w.predicted) w.predicted_text.push_back(visible_text(token_bytes(p.token)));
    for (const Prediction& p : w.reference_predicted) {
      w.reference_predicted_text.push_back(visible_text(token_bytes(p.token)));
    }
  }
  return out;
}

}  // namespace narrow::eval::report

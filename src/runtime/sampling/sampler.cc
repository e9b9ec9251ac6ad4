#include "runtime/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace narrow::runtime {
namespace {

Status in_range(bool ok, std::string_view option, double value, std::string_view range) {
  if (ok) return {};
  return make_error(ErrorCode::kInvalidArgument, "{} {} is out of range: {}", option, value, range);
}

}  // namespace

Result<Sampler> Sampler::create(const SamplerOptions& o) {
  // Written so that NaN fails too.
  NARROW_TRY(in_range(o.temperature >= 0.0f && std::isfinite(o.temperature), "temperature", o.temperature,
                      "0 (greedy) or more"));
  NARROW_TRY(in_range(o.top_k >= 0, "top-k", o.top_k, "0 (off) or more"));
  NARROW_TRY(in_range(o.top_p > 0.0f && o.top_p <= 1.0f, "top-p", o.top_p, "above 0, up to 1 (off)"));
  NARROW_TRY(in_range(o.min_p >= 0.0f && o.min_p <= 1.0f, "min-p", o.min_p, "0 (off) to 1"));
  NARROW_TRY(in_range(o.repeat_penalty > 0.0f && std::isfinite(o.repeat_penalty), "repetition penalty",
                      o.repeat_penalty, "above 0; 1 is off"));
  NARROW_TRY(in_range(o.repeat_last >= 0, "repeat-last", o.repeat_last, "0 (none) or more"));
  return Sampler(o);
}

// Once per distinct token of the window: positive logits are divided, negative ones multiplied.
std::span<const float> Sampler::penalised(std::span<const float> logits,
                                          std::span<const std::int32_t> history) {
  const std::size_t n = std::min(history.size(), static_cast<std::size_t>(options_.repeat_last));
  if (options_.repeat_penalty == 1.0f || n == 0) return logits;
  scratch_.assign(logits.begin(), logits.end());
  std::vector<std::int32_t> recent(history.end() - static_cast<std::ptrdiff_t>(n), history.end());
  std::sort(recent.begin(), recent.end());
  recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
  for (const std::int32_t id : recent) {
    if (id < 0 || static_cast<std::size_t>(id) >= scratch_.size()) continue;
    float& logit = scratch_[static_cast<std::size_t>(id)];
    logit = logit > 0.0f ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
  }
  return scratch_;
}

void Sampler::select_top_k() {
  const auto k = static_cast<std::size_t>(options_.top_k);
  blocks_.gather(blocks_.reached_by(k), candidates_);
  if (candidates_.size() <= k) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k),
                   candidates_.end(), Better());
  candidates_.resize(k);
}

// Both rules keep a prefix of the candidates in order of likelihood: top-p the shortest one whose probability
// reaches p, min-p those at least min_p times as likely as the best. So min-p may cut first, by one
// comparison each, as long as top-p still divides by the probability of all.
void Sampler::select_likely() {
  const float best = blocks_.best();
  double total = 0.0;
  for (Candidate& c : candidates_) {
    c.weight = exp_of_negative(static_cast<double>(c.logit - best));
    total += c.weight;
  }
  if (options_.min_p > 0.0f) {
    const float least = best + std::log(options_.min_p);
    std::erase_if(candidates_, [least](const Candidate& c) { return c.logit < least; });
  }
  if (options_.top_p < 1.0f) cut_to_top_p(options_.top_p * total);
}

// The same, with the whole vocabulary as candidates, of which it gathers little more than top-p keeps.
void Sampler::select_likely_of_all() {
  const float best = blocks_.best(), lowest = std::numeric_limits<float>::lowest();
  const float least = options_.min_p > 0.0f ? best + std::log(options_.min_p) : lowest;
  if (options_.top_p >= 1.0f) {
    blocks_.gather(least, candidates_);
    return;
  }
  const double total = blocks_.sum_of_exp(), wanted = options_.top_p * total;
  float bound = blocks_.bound_of_tail(total - wanted);
  for (float step = 0.5f;; step *= 4.0f) {
    bound = step > 1000.0f ? least : std::max(least, bound);
    candidates_.clear();
    blocks_.gather(bound, candidates_);
    double sum = 0.0;
    for (Candidate& c : candidates_) {
      c.weight = exp_of_negative(static_cast<double>(c.logit - best));
      sum += c.weight;
    }
    // Sums in another order differ in the last digits.
    if (bound <= least || sum > wanted * (1.0 + 1e-9)) break;
    bound -= step;  // the guess was too high
  }
  cut_to_top_p(wanted);
}

void Sampler::cut_to_top_p(double wanted) {
  const Candidate last = last_of_prefix(candidates_, wanted, false);
  std::erase_if(candidates_, [&last](const Candidate& c) { return Better()(last, c); });
}

std::int32_t Sampler::draw(bool by_likelihood) {
  const double inverse = 1.0 / options_.temperature;
  const double best = blocks_.best();
  double total = 0.0;
  for (Candidate& c : candidates_) {
    c.weight = exp_of_negative((c.logit - best) * inverse);
    total += c.weight;
  }
  const double target = rng_.next_double() * total;
  if (by_likelihood) return last_of_prefix(candidates_, target, true).id;
  double sum = 0.0;
  for (const Candidate& c : candidates_) {
    sum += c.weight;
    if (sum > target) return c.id;
  }
  return candidates_.back().id;  // rounding left a sliver
}

Result<std::int32_t> Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> history) {
  blocks_.reset(penalised(logits, history));
  if (blocks_.empty()) {
    return make_error(ErrorCode::kNumeric, "sampling: none of the {} logits is finite", logits.size());
  }
  if (options_.temperature == 0.0f) return blocks_.best_id();
  const bool top_k = options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < logits.size();
  const bool top_p = options_.top_p < 1.0f;
  if (!top_k && !top_p && options_.min_p == 0.0f) {
    return blocks_.draw(options_.temperature, rng_.next_double());
  }
  candidates_.clear();
  if (top_k) {
    select_top_k();
    select_likely();
  } else {
    select_likely_of_all();
  }
  return draw(top_k || top_p);
}

}  // namespace narrow::runtime

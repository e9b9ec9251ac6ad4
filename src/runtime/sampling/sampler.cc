#include "runtime/sampling/sampler.h"

#include <algorithm>
#include <cmath>

namespace narrow::runtime {
namespace {

// Greater logit first, lower id on a tie: a total order, so results do not depend on the selection algorithm.
constexpr auto kBetter = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};

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
void Sampler::penalise(std::span<const std::int32_t> history) {
  if (options_.repeat_penalty == 1.0f) return;
  const std::size_t n = std::min(history.size(), static_cast<std::size_t>(options_.repeat_last));
  std::vector<std::int32_t> recent(history.end() - static_cast<std::ptrdiff_t>(n), history.end());
  std::sort(recent.begin(), recent.end());
  recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
  for (const std::int32_t id : recent) {
    if (id < 0 || static_cast<std::size_t>(id) >= scratch_.size()) continue;
    float& logit = scratch_[static_cast<std::size_t>(id)];
    logit = logit > 0.0f ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
  }
}

void Sampler::keep_top_k() {
  const auto k = static_cast<std::size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k),
                   candidates_.end(), kBetter);
  candidates_.resize(k);
}

// Both rules keep a prefix of the candidates in order of likelihood: top-p the shortest one whose probability
// reaches p, min-p those at least min_p times as likely as the best. So min-p may cut first, by one
// comparison each, as long as top-p still divides by the probability of all; then only the rest needs
// sorting, and of that only as much as top-p takes.
void Sampler::keep_likely() {
  const float best = std::min_element(candidates_.begin(), candidates_.end(), kBetter)->logit;
  double total = 0.0;
  if (options_.top_p < 1.0f) {
    for (const Candidate& c : candidates_) total += std::exp(static_cast<double>(c.logit - best));
  }
  if (options_.min_p > 0.0f) {
    const float least = best + std::log(options_.min_p);
    std::erase_if(candidates_, [least](const Candidate& c) { return c.logit < least; });
  }
  if (options_.top_p >= 1.0f) return;
  const double wanted = options_.top_p * total;
  double sum = 0.0;
  std::size_t sorted = 0, step = 64;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (i == sorted) {
      sorted = std::min(candidates_.size(), sorted + step);
      step *= 2;
      std::partial_sort(candidates_.begin() + static_cast<std::ptrdiff_t>(i),
                        candidates_.begin() + static_cast<std::ptrdiff_t>(sorted), candidates_.end(),
                        kBetter);
    }
    sum += std::exp(static_cast<double>(candidates_[i].logit - best));
    if (sum < wanted) continue;
    candidates_.resize(i + 1);
    return;
  }
}

std::int32_t Sampler::draw() {
  const double inverse = 1.0 / options_.temperature;
  const double best = std::min_element(candidates_.begin(), candidates_.end(), kBetter)->logit;
  double total = 0.0;
  for (const Candidate& c : candidates_) total += std::exp((c.logit - best) * inverse);
  double left = rng_.next_double() * total;
  for (const Candidate& c : candidates_) {
    left -= std::exp((c.logit - best) * inverse);
    if (left < 0.0) return c.id;
  }
  return candidates_.back().id;  // rounding left a sliver
}

Result<std::int32_t> Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> history) {
  scratch_.assign(logits.begin(), logits.end());
  penalise(history);
  candidates_.clear();
  for (std::size_t i = 0; i < scratch_.size(); ++i) {
    if (std::isfinite(scratch_[i])) candidates_.push_back({scratch_[i], static_cast<std::int32_t>(i)});
  }
  if (candidates_.empty()) {
    return make_error(ErrorCode::kNumeric, "sampling: none of the {} logits is finite", logits.size());
  }
  if (options_.temperature == 0.0f) {
    return std::min_element(candidates_.begin(), candidates_.end(), kBetter)->id;
  }
  keep_top_k();
  keep_likely();
  return draw();
}

}  // namespace narrow::runtime

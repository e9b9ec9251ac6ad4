#include "eval/divergence.h"

#include <algorithm>
#include <cmath>

namespace narrow::eval {
namespace {

struct LogSumExp {
  double log_z = 0;  // log sum exp(logit)
  std::size_t argmax = 0;
};

LogSumExp log_sum_exp(std::span<const float> logits) {
  LogSumExp r;
  r.argmax = static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const double top = logits[r.argmax];
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  r.log_z = top + std::log(sum);
  return r;
}

}  // namespace

TokenScore score_token(std::span<const float> logits, std::span<const float> reference, std::int32_t target) {
  TokenScore s;
  const auto t = static_cast<std::size_t>(target);
  const LogSumExp q = log_sum_exp(logits);
  s.nll = q.log_z - static_cast<double>(logits[t]);
  if (reference.empty()) return s;
  const LogSumExp p = log_sum_exp(reference);
  s.reference_nll = p.log_z - static_cast<double>(reference[t]);
  s.same_top1 = p.argmax == q.argmax;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double log_p = static_cast<double>(reference[i]) - p.log_z;
    const double log_q = static_cast<double>(logits[i]) - q.log_z;
    s.kl += std::exp(log_p) * (log_p - log_q);
  }
  return s;
}

MeanAndError mean_and_error(std::span<const double> x) {
  MeanAndError r;
  if (x.empty()) return r;
  const auto n = static_cast<double>(x.size());
  for (const double v : x) r.mean += v;
  r.mean /= n;
  if (x.size() < 2) return r;
  double squares = 0;
  for (const double v : x) squares += (v - r.mean) * (v - r.mean);
  r.se = std::sqrt(squares / (n - 1) / n);
  return r;
}

double quantile(std::vector<double> x, double q) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  const double at = q * static_cast<double>(x.size() - 1);
  const auto lo = static_cast<std::size_t>(at);
  const std::size_t hi = std::min(lo + 1, x.size() - 1);
  return x[lo] + (x[hi] - x[lo]) * (at - static_cast<double>(lo));
}

}  // namespace narrow::eval

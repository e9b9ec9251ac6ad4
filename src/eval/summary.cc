#include "eval/summary.h"

#include <cmath>
#include <vector>

namespace narrow::eval {

ScoreSummary summarize(std::span<const TokenScore> scores, bool compared) {
  std::vector<double> nll, reference_nll, kl, same;
  double squared_p = 0;
  for (const TokenScore& s : scores) {
    nll.push_back(s.nll);
    reference_nll.push_back(s.reference_nll);
    kl.push_back(s.kl);
    same.push_back(s.same_top1 ? 1.0 : 0.0);
    const double dp = std::exp(-s.nll) - std::exp(-s.reference_nll);
    squared_p += dp * dp;
  }
  ScoreSummary r;
  const MeanAndError m = mean_and_error(nll);
  r.perplexity = std::exp(m.mean);
  r.perplexity_se = r.perplexity * m.se;  // d exp(x) = exp(x) dx
  if (!compared) return r;
  const MeanAndError reference = mean_and_error(reference_nll);
  r.reference_perplexity = std::exp(reference.mean);
  r.reference_perplexity_se = r.reference_perplexity * reference.se;
  const MeanAndError k = mean_and_error(kl), t = mean_and_error(same);
  r.kl_mean = k.mean;
  r.kl_se = k.se;
  r.kl_median = quantile(kl, 0.5);
  r.kl_p90 = quantile(kl, 0.9);
  r.kl_p99 = quantile(kl, 0.99);
  r.kl_p999 = quantile(kl, 0.999);
  r.kl_max = quantile(kl, 1.0);
  r.top1_agreement = t.mean;
  r.top1_se = t.se;
  r.delta_p_rms = scores.empty() ? 0 : std::sqrt(squared_p / static_cast<double>(scores.size()));
  return r;
}

}  // namespace narrow::eval

// The scores of all positions in a few numbers.
#pragma once

#include <span>

#include "eval/divergence.h"

namespace narrow::eval {

struct ScoreSummary {
  double perplexity = 0, perplexity_se = 0;  // exp of the mean negative log-likelihood; first-order error
  // The rest is of a comparison, and 0 without one.
  double reference_perplexity = 0, reference_perplexity_se = 0;
  double kl_mean = 0, kl_se = 0, kl_median = 0, kl_p90 = 0, kl_p99 = 0, kl_p999 = 0, kl_max = 0;  // nats
  double top1_agreement = 0, top1_se = 0;  // share of positions with the same most likely token
  double delta_p_rms = 0;                  // root mean square of p_model - p_reference of the true token
};

ScoreSummary summarize(std::span<const TokenScore> scores, bool compared);

}  // namespace narrow::eval

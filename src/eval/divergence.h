// What one model's next-token distributions lost against another's, and against the text itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace narrow::eval {

// Of one scored position. Natural logarithms.
struct TokenScore {
  double nll = 0;            // -log p_model(true next token)
  double reference_nll = 0;  // the same of the reference
  double kl = 0;             // KL(reference || model) over the whole vocabulary, >= 0 up to rounding
  bool same_top1 = false;    // both models' most likely token is the same (lowest id wins a tie)
};

// logits [n_vocab], summed in double. `reference` may be empty: then only nll is set.
TokenScore score_token(std::span<const float> logits, std::span<const float> reference, std::int32_t target);

struct MeanAndError {
  double mean = 0, se = 0;  // standard error of the mean
};
MeanAndError mean_and_error(std::span<const double> x);

// The q-quantile (0..1) with linear interpolation between order statistics; x need not be sorted.
double quantile(std::vector<double> x, double q);

}  // namespace narrow::eval

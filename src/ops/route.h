// Choice of experts for a mixture-of-experts layer.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/matrix.h"

namespace narrow::ops {

struct Choice {
  std::int32_t expert = 0;
  float weight = 0.0f;
};

// For each row of router logits [m, n_expert] (which become their softmax): the `used` experts of greatest
// probability, best first, the lower index on a tie; weights are the probabilities, divided by their sum when
// `normalise`. Result: m * used choices, row by row. 0 < used <= n_expert.
std::vector<Choice> choose_experts(Matrix logits, std::int64_t used, bool normalise);

}  // namespace narrow::ops

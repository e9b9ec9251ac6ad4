// The positions where a model is farthest from its reference, and what both predicted there.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/evaluate.h"
#include "eval/report/measurements.h"

namespace narrow::eval::report {

class WorstTokens {
 public:
  explicit WorstTokens(std::size_t count) : count_(count) {}
  void observe(const ScoredPosition& position);  // a PositionObserver
  // The highest KL first, with texts filled in: `tokens` is the evaluated text, token_bytes gives the bytes
  // that a token stands for.
  std::vector<WorstToken> take(std::span<const std::int32_t> tokens,
                               const std::function<std::string(std::int32_t)>& token_bytes) const;

 private:
  std::size_t count_;
  std::vector<WorstToken> worst_;  // highest KL first; earlier positions first among equals
};

}  // namespace narrow::eval::report

// Picks the next token from logits: repetition penalty, temperature, top-k, top-p, min-p, seed.
// The order is llama.cpp's: penalties, top-k, top-p, min-p, temperature.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/rng.h"

namespace narrow::runtime {

struct SamplerOptions {
  float temperature = 0.8f;  // 0: greedy (argmax, lowest id wins a tie)
  int top_k = 40;            // 0: off
  float top_p = 0.95f;       // 1: off
  float min_p = 0.05f;       // 0: off
  float repeat_penalty = 1.0f;  // 1: off; > 1 makes tokens of the last repeat_last less likely (Keskar et al. 2019)
  int repeat_last = 64;
  std::uint64_t seed = 0;
};

class Sampler {
 public:
  // kInvalidArgument names the option and its range.
  static Result<Sampler> create(const SamplerOptions& options);
  // logits [n_vocab]; history: tokens so far (prompt included). kNumeric when no logit is finite.
  Result<std::int32_t> sample(std::span<const float> logits, std::span<const std::int32_t> history);

 private:
  explicit Sampler(const SamplerOptions& o) : options_(o), rng_(o.seed) {}
  SamplerOptions options_;
  Rng rng_;
  std::vector<float> scratch_;
};

}  // namespace narrow::runtime

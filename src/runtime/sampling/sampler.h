// Picks the next token from logits: repetition penalty, temperature, top-k, top-p, min-p, seed.
// The order is llama.cpp's: penalties, top-k, top-p, min-p, temperature. The seed's random number picks from
// the remaining tokens' cumulative probability, in order of likelihood where top-k or top-p selects, else of
// id. No step sorts or copies the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/rng.h"
#include "runtime/sampling/selection.h"

namespace narrow::runtime {

struct SamplerOptions {
  float temperature = 0.8f;  // 0: greedy (argmax, lowest id wins a tie)
  int top_k = 40;            // 0: off
  float top_p = 0.95f;       // 1: off
  float min_p = 0.05f;       // 0: off
  float repeat_penalty =
      1.0f;              // 1: off; > 1 makes tokens of the last repeat_last less likely (Keskar et al. 2019)
  int repeat_last = 64;  // 0: none
  std::uint64_t seed = 0;
};

class Sampler {
 public:
  // kInvalidArgument names the option and its range.
  static Result<Sampler> create(const SamplerOptions& options);
  // logits [n_vocab]; history: tokens so far (prompt included). Logits that are not finite are never chosen;
  // kNumeric when none is finite.
  Result<std::int32_t> sample(std::span<const float> logits, std::span<const std::int32_t> history);

 private:
  explicit Sampler(const SamplerOptions& o) : options_(o), rng_(o.seed) {}
  std::span<const float> penalised(std::span<const float> logits, std::span<const std::int32_t> history);
  void select_top_k();
  void select_likely();  // top-p and min-p among the candidates
  void select_likely_of_all();
  void cut_to_top_p(double wanted);
  std::int32_t draw(bool by_likelihood);  // else in order of id

  SamplerOptions options_;
  Rng rng_;
  std::vector<float> scratch_;  // logits after penalties
  LogitBlocks blocks_;
  std::vector<Candidate> candidates_;  // what may still be chosen
};

}  // namespace narrow::runtime

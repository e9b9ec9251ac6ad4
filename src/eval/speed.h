// How fast a model runs: prefill and decode tokens per second, each phase a test of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "narrow/progress.h"
#include "runtime/session.h"

namespace narrow::eval {

// One thing to time. Exactly one of n_prompt and n_gen is above 0.
struct SpeedTest {
  std::int64_t n_prompt = 0;  // tokens fed at once (prefill)
  std::int64_t n_gen = 0;     // tokens fed one by one, with logits for each (decode)
  std::int64_t depth = 0;     // tokens that are in the context before the clock starts
  std::int64_t batch = 1;     // sequences that take each step together, with contexts of their own

  // "pp512", "tg64", "pp512@d4096", "tg64@b8"
  std::string name() const;
  // Tokens of one repetition, of all sequences together.
  std::int64_t tokens() const { return (n_prompt + n_gen) * batch; }
};

struct Rate {
  double median = 0;  // tokens per second
  double spread = 0;  // (fastest - slowest) / median over the repetitions
};
// Of one repetition's tokens per second each; at least one.
Rate rate_of(std::vector<double> tokens_per_s);

struct SpeedResult {
  SpeedTest test;
  std::vector<double> tokens_per_s;  // of each repetition, in order
  Rate rate;
  std::uint64_t cache_bytes = 0;  // keys and values of all sequences at the end of a repetition
};

// Feeds pseudo-random tokens: each test once to warm up and then `repetitions` times. Results are in the
// order of the tests. Of the options n_ctx is not used. kInvalidArgument names a number that is out of range.
Result<std::vector<SpeedResult>> measure_tests(const std::shared_ptr<const runtime::LoadedModel>& model,
                                               const runtime::SessionOptions& options,
                                               std::span<const SpeedTest> tests, int repetitions,
                                               ProgressSink& progress);

struct Speed {
  Rate prefill, decode;
  std::uint64_t cache_bytes = 0;
};
// The two tests of `prefill` tokens and of `decode` tokens after them. All three numbers are at least 1.
Result<Speed> measure_speed(const std::shared_ptr<const runtime::LoadedModel>& model,
                            const runtime::SessionOptions& options, int prefill, int decode, int repetitions,
                            ProgressSink& progress);

}  // namespace narrow::eval

// How fast and how large a session runs: prefill and decode tokens per second.
#pragma once

#include "base/result.h"
#include "narrow/progress.h"
#include "runtime/session.h"

namespace narrow::eval {

struct Rate {
  double median = 0;  // tokens per second
  double spread = 0;  // (fastest - slowest) / median over the repetitions
};
struct Speed {
  Rate prefill, decode;
  std::uint64_t cache_bytes = 0;
};

// Feeds `prefill` pseudo-random tokens at once, then `decode` tokens one by one, `repetitions` times after
// one warm-up. All three are at least 1.
Result<Speed> measure_speed(const std::shared_ptr<const runtime::LoadedModel>& model, int prefill, int decode,
                            int repetitions, ProgressSink& progress);

}  // namespace narrow::eval

#include "eval/speed.h"

#include <algorithm>
#include <chrono>

#include "base/rng.h"

namespace narrow::eval {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

Rate rate_of(std::vector<double> tokens_per_s) {
  std::sort(tokens_per_s.begin(), tokens_per_s.end());
  const std::size_t n = tokens_per_s.size();
  Rate r;
  r.median = n % 2 ? tokens_per_s[n / 2] : (tokens_per_s[n / 2 - 1] + tokens_per_s[n / 2]) / 2;
  r.spread = (tokens_per_s.back() - tokens_per_s.front()) / r.median;
  return r;
}

}  // namespace

Result<Speed> measure_speed(const std::shared_ptr<const runtime::LoadedModel>& model, int prefill, int decode,
                            int repetitions, ProgressSink& progress) {
  if (prefill < 1 || decode < 1 || repetitions < 1) {
    return make_error(ErrorCode::kInvalidArgument,
                      "prefill ({}), decode ({}) and repetitions ({}) must be at least 1", prefill, decode,
                      repetitions);
  }
  runtime::SessionOptions options;
  options.n_ctx = prefill + decode;
  NARROW_ASSIGN(auto session, runtime::Session::create(model, options));
  Rng rng(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(prefill + decode));
  for (std::int32_t& id : ids) {
    id = static_cast<std::int32_t>(rng.next_u64() % static_cast<std::uint64_t>(model->config().n_vocab));
  }
  const std::span<const std::int32_t> all(ids);
  const auto first = all.subspan(0, static_cast<std::size_t>(prefill));

  std::vector<double> prefill_rates, decode_rates;
  std::vector<float> logits;
  progress.begin("measure speed", static_cast<std::uint64_t>(repetitions) + 1, "rounds");
  for (int r = 0; r <= repetitions; ++r) {  // round 0 warms up
    session->truncate(0);
    const auto t0 = Clock::now();
    NARROW_TRY(session->forward(first, runtime::LogitRows::kLast, logits));
    const double prefill_s = seconds_since(t0);
    const auto t1 = Clock::now();
    for (int i = 0; i < decode; ++i) {
      NARROW_TRY(session->forward(all.subspan(static_cast<std::size_t>(prefill + i), 1),
                                  runtime::LogitRows::kLast, logits));
    }
    const double decode_s = seconds_since(t1);
    if (r > 0) {
      prefill_rates.push_back(prefill / prefill_s);
      decode_rates.push_back(decode / decode_s);
    }
    progress.update(static_cast<std::uint64_t>(r) + 1, "");
  }
  progress.end();
  return Speed{rate_of(prefill_rates), rate_of(decode_rates), session->cache_bytes()};
}

}  // namespace narrow::eval

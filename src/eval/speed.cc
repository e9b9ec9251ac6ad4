#include "eval/speed.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/rng.h"
#include "base/stopwatch.h"
#include "runtime/batch.h"

namespace narrow::eval {
namespace {

using Clock = std::chrono::steady_clock;

Status check(std::span<const SpeedTest> tests, int repetitions) {
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 30, kMostSequences = 4096;
  if (tests.empty()) return make_error(ErrorCode::kInvalidArgument, "no test to run");
  if (repetitions < 1)
    return make_error(ErrorCode::kInvalidArgument, "{} repetitions; at least 1 needed", repetitions);
  for (const SpeedTest& t : tests) {
    if ((t.n_prompt > 0) == (t.n_gen > 0) || std::max(t.n_prompt, t.n_gen) > kMostTokens) {
      return make_error(ErrorCode::kInvalidArgument,
                        "a test of {} prefill and {} decode tokens: one of them must be 1 to {}, the other 0",
                        t.n_prompt, t.n_gen, kMostTokens);
    }
    if (t.depth < 0 || t.depth > kMostTokens) {
      return make_error(ErrorCode::kInvalidArgument, "a depth of {} tokens; 0 to {} possible", t.depth,
                        kMostTokens);
    }
    if (t.batch < 1 || t.batch > kMostSequences) {
      return make_error(ErrorCode::kInvalidArgument, "a batch of {}; 1 to {} possible", t.batch,
                        kMostSequences);
    }
  }
  return {};
}

// Sequences that take each step together, all with the same tokens.
class Sequences {
 public:
  static Result<Sequences> create(const std::shared_ptr<const runtime::LoadedModel>& model, std::int64_t n,
                                  runtime::SessionOptions options, std::int64_t n_ctx) {
    options.n_ctx = n_ctx;
    NARROW_ASSIGN(auto batch, runtime::Batch::create(model, static_cast<int>(n), options));
    return Sequences(std::move(batch));
  }

  // Every sequence holds ids[0, depth) and nothing else, each in memory of its own.
  Status rewind(std::span<const std::int32_t> ids, std::int64_t depth) {
    for (int i = 0; i < batch_->n_sequences(); ++i) {
      // Where sliding windows have let go of what `depth` would see, from the start again.
      if (batch_->position(i) > depth && !batch_->truncate(i, depth).ok()) NARROW_TRY(batch_->truncate(i, 0));
      // What a sequence holds is ids from its start, whichever test put it there.
      const auto have = static_cast<std::size_t>(batch_->position(i));
      const auto missing = ids.subspan(have, static_cast<std::size_t>(depth) - have);
      const runtime::Batch::Step step{i, missing, missing.size()};
      if (!missing.empty()) NARROW_TRY(batch_->forward({&step, 1}, logits_));
    }
    return {};
  }

  // Appends the tokens to each sequence; logits for the last of them.
  Status append(std::span<const std::int32_t> tokens) {
    steps_.clear();
    for (int i = 0; i < batch_->n_sequences(); ++i) steps_.push_back({i, tokens, tokens.size() - 1});
    return batch_->forward(steps_, logits_);
  }

  std::uint64_t cache_bytes() const { return batch_->cache_bytes(); }

 private:
  explicit Sequences(std::unique_ptr<runtime::Batch> batch) : batch_(std::move(batch)) {}

  std::unique_ptr<runtime::Batch> batch_;
  std::vector<runtime::Batch::Step> steps_;
  std::vector<float> logits_;
};

// Seconds of one repetition.
Result<double> run_once(const SpeedTest& test, Sequences& sequences, std::span<const std::int32_t> ids) {
  NARROW_TRY(sequences.rewind(ids, test.depth));
  const auto tokens =
      ids.subspan(static_cast<std::size_t>(test.depth), static_cast<std::size_t>(test.n_prompt + test.n_gen));
  const auto start = Clock::now();
  if (test.n_prompt > 0) {
    NARROW_TRY(sequences.append(tokens));
  } else {
    for (const std::int32_t& id : tokens) NARROW_TRY(sequences.append({&id, 1}));
  }
  return seconds_since(start);
}

}  // namespace

std::string SpeedTest::name() const {
  std::string s = n_prompt > 0 ? fmt::format("pp{}", n_prompt) : fmt::format("tg{}", n_gen);
  if (depth > 0) s += fmt::format("@d{}", depth);
  if (batch > 1) s += fmt::format("@b{}", batch);
  return s;
}

Rate rate_of(std::vector<double> tokens_per_s) {
  std::sort(tokens_per_s.begin(), tokens_per_s.end());
  const std::size_t n = tokens_per_s.size();
  Rate r;
  r.median = n % 2 ? tokens_per_s[n / 2] : (tokens_per_s[n / 2 - 1] + tokens_per_s[n / 2]) / 2;
  r.spread = (tokens_per_s.back() - tokens_per_s.front()) / r.median;
  return r;
}

Result<std::vector<SpeedResult>> measure_tests(const std::shared_ptr<const runtime::LoadedModel>& model,
                                               const runtime::SessionOptions& options,
                                               std::span<const SpeedTest> tests, int repetitions,
                                               ProgressSink& progress) {
  NARROW_TRY(check(tests, repetitions));
  std::int64_t n_ctx = 0;
  for (const SpeedTest& t : tests) n_ctx = std::max(n_ctx, t.depth + t.n_prompt + t.n_gen);
  Rng rng(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n_ctx));
  for (std::int32_t& id : ids) {
    id = static_cast<std::int32_t>(rng.next_u64() % static_cast<std::uint64_t>(model->config().n_vocab));
  }

  std::vector<SpeedResult> results;
  std::optional<Sequences> sequences;
  std::int64_t n_sequences = 0;
  const auto rounds = static_cast<std::uint64_t>(repetitions) + 1;
  std::uint64_t done = 0;
  progress.begin("measure speed", tests.size() * rounds, "rounds");
  for (const SpeedTest& test : tests) {
    if (n_sequences != test.batch) {
      sequences.reset();  // before the next one, so that memory holds one at a time
      NARROW_ASSIGN(sequences, Sequences::create(model, test.batch, options, n_ctx));
      n_sequences = test.batch;
    }
    SpeedResult result;
    result.test = test;
    for (std::uint64_t r = 0; r < rounds; ++r) {  // round 0 warms up
      if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      NARROW_ASSIGN(const double seconds, run_once(test, *sequences, ids));
      if (r > 0) result.tokens_per_s.push_back(static_cast<double>(test.tokens()) / seconds);
      progress.update(++done, test.name());
    }
    result.rate = rate_of(result.tokens_per_s);
    result.cache_bytes = sequences->cache_bytes();
    results.push_back(std::move(result));
  }
  progress.end();
  return results;
}

Result<Speed> measure_speed(const std::shared_ptr<const runtime::LoadedModel>& model,
                            const runtime::SessionOptions& options, int prefill, int decode, int repetitions,
                            ProgressSink& progress) {
  const SpeedTest tests[] = {{.n_prompt = prefill}, {.n_gen = decode, .depth = std::max(prefill, 0)}};
  NARROW_ASSIGN(const auto r, measure_tests(model, options, tests, repetitions, progress));
  return Speed{r[0].rate, r[1].rate, r[1].cache_bytes};
}

}  // namespace narrow::eval

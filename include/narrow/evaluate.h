// What quantization cost: perplexity, KL divergence, top-1 agreement; and plain speed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "narrow/engine.h"
#include "narrow/progress.h"
#include "narrow/result.h"

namespace narrow {

struct EvaluateOptions {
  std::filesystem::path model;
  std::filesystem::path reference;  // empty: perplexity only
  std::filesystem::path text;
  std::int64_t n_ctx = 512;
  std::int64_t windows = 0;  // 0: all
  std::int64_t stride = 0;   // 0: llama-perplexity's protocol; > 0: sliding window with this step
  EngineOptions engine;      // of the model; the reference runs with the defaults
};

struct EvaluateReport {
  std::string protocol;  // says everything needed to repeat the measurement
  std::int64_t windows = 0, scored_tokens = 0;
  double perplexity = 0, perplexity_se = 0;
  struct Divergence {  // KL(reference || model), nats, over scored positions and the whole vocabulary
    double kl_mean = 0, kl_se = 0, kl_median = 0, kl_p90 = 0, kl_p99 = 0, kl_p999 = 0, kl_max = 0;
    double top1_agreement = 0, top1_se = 0;  // share of positions with the same most likely token
    double reference_perplexity = 0, reference_perplexity_se = 0;
    double delta_p_rms = 0;  // root mean square of p_model - p_reference of the true token
  };
  std::optional<Divergence> divergence;
  std::uint64_t model_bytes = 0, reference_bytes = 0;
  double bpw = 0;
  double seconds = 0, tokens_per_s = 0;
  std::uint64_t peak_memory_bytes = 0;
  std::string to_json() const;
};

Result<EvaluateReport> evaluate(const EvaluateOptions& options, ProgressSink& progress = null_progress());

struct SpeedOptions {
  std::filesystem::path model;
  int prefill = 512, decode = 32, repetitions = 3;
  EngineOptions engine;
};
struct SpeedReport {
  double prefill_tokens_per_s = 0, prefill_spread = 0;  // median, and (max-min)/median
  double decode_tokens_per_s = 0, decode_spread = 0;
  std::uint64_t peak_memory_bytes = 0, model_bytes = 0, cache_bytes = 0;
  std::string to_json() const;
};
Result<SpeedReport> measure_speed(const SpeedOptions& options, ProgressSink& progress = null_progress());

}  // namespace narrow

// How fast a model runs here, and how near that is to what the machine could do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "narrow/engine.h"
#include "narrow/progress.h"
#include "narrow/result.h"

namespace narrow {

struct BenchOptions {
  std::filesystem::path model;
  // One test each: tokens fed at once, and tokens fed one by one. 0 is left out.
  std::vector<std::int64_t> prefill = {512};
  std::vector<std::int64_t> decode = {64};
  std::int64_t depth = 0;  // tokens that are in the context before each test
  std::int64_t batch = 1;  // sequences that decode together
  int repetitions = 5;     // after one that warms up
  EngineOptions engine;
};

struct BenchResult {
  std::string test;  // "pp512", "tg64", "pp512@d4096", "tg64@b8"
  std::int64_t n_prompt = 0, n_gen = 0, depth = 0, batch = 1;
  double tokens_per_s = 0;        // median over the repetitions, of all sequences together
  double spread = 0;              // (fastest - slowest) / median
  double ms_per_token = 0;        // 1000 / tokens_per_s
  std::vector<double> samples;    // tokens per second of each repetition
  std::uint64_t cache_bytes = 0;  // keys and values of all sequences at the end of the test
  // What a token costs: bytes read of weights and cache, and operations of the products with weights (two per
  // multiplication; attention is not counted).
  double bytes_per_token = 0, operations_per_token = 0;
  // The nearer of the two limits, what it allows, and how much of that was reached (0 to 1).
  std::string limit;  // "memory" or "arithmetic"
  double limit_tokens_per_s = 0, of_limit = 0;
};

// Measured with the same threads in the same run.
struct BenchLimits {
  double int8_operations_per_s = 0;  // two per multiplication
  // Reading a buffer larger than the caches; and one as large as what a decoded token reads of the model,
  // which may stay in the last cache.
  double memory_bytes_per_s = 0, model_bytes_per_s = 0;
  std::uint64_t memory_buffer_bytes = 0, model_buffer_bytes = 0;
};

struct BenchReport {
  std::string model;         // file or folder name
  std::string name;          // the model's own name, or empty
  std::string architecture;  // GGUF's name for it
  std::string type;          // the stored format of most of its weights
  double bpw = 0;
  std::uint64_t size_bytes = 0;  // of the files
  int threads = 0;
  std::string isa;
  int repetitions = 0;
  EngineOptions engine;              // as asked for
  std::uint64_t cache_bytes = 0;     // keys and values of the test with most of them
  std::uint64_t peak_rss_bytes = 0;  // of loading and running, before the limits' buffers
  BenchLimits limits;
  std::vector<BenchResult> results;

  std::string to_json() const;
  // One line per result under a line of names, each ended by a newline.
  std::string to_csv() const;
};

// kInvalidArgument names the option and its range.
Result<BenchReport> bench(const BenchOptions& options, ProgressSink& progress = null_progress());

}  // namespace narrow

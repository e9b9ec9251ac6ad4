#include "eval/limits.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/huge_buffer.h"
#include "base/stopwatch.h"
#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMinPasses = 3;
// Time of one pass: long beside the start of the threads.
constexpr double kPassSeconds = 0.01;
constexpr std::uint64_t kLine = 64;

// Best units per second of pass(repeats), which does `units` units `repeats` times over.
template <class Pass>
double best_rate(double units, double seconds, Pass pass) {
  std::int64_t repeats = 1;
  pass(repeats);  // touches what it needs
  for (;;) {
    const auto t = Clock::now();
    pass(repeats);
    if (seconds_since(t) >= kPassSeconds) break;
    repeats *= 2;
  }
  double best = 0;
  const auto start = Clock::now();
  for (int i = 0; i < kMinPasses || seconds_since(start) < seconds; ++i) {
    const auto t = Clock::now();
    pass(repeats);
    best = std::max(best, units * static_cast<double>(repeats) / seconds_since(t));
  }
  return best;
}

// Loads and adds of whole vectors; bytes is a multiple of two cache lines, data aligned to one.
std::uint64_t sum_of_words(const std::byte* data, std::uint64_t bytes) {
  typedef std::uint64_t Vector __attribute__((vector_size(32), may_alias));
  constexpr std::uint64_t kStep = 2 * kLine;
  Vector a = {}, b = {};
  for (std::uint64_t at = 0; at + kStep <= bytes; at += kStep) {
    const auto* v = reinterpret_cast<const Vector*>(data + at);
    a += v[0] + v[1];
    b += v[2] + v[3];
  }
  return a[0] + a[1] + a[2] + a[3] + b[0] + b[1] + b[2] + b[3];
}

}  // namespace

double read_bandwidth(std::uint64_t bytes, double seconds) {
  const auto parts = static_cast<std::uint64_t>(thread_count());
  const std::uint64_t part = (bytes / parts / (2 * kLine) + 1) * (2 * kLine);
  const HugeBuffer buffer(static_cast<std::size_t>(part * parts));
  const auto each_part = [&](const auto& body) {
    parallel_for(static_cast<std::int64_t>(parts),
                 [&](std::int64_t i, int) { body(buffer.data() + static_cast<std::uint64_t>(i) * part); });
  };
  // Untouched pages would all be the one page of zeros.
  each_part([&](std::byte* p) { std::memset(p, 1, static_cast<std::size_t>(part)); });
  return best_rate(static_cast<double>(part * parts), seconds, [&](std::int64_t repeats) {
    each_part([&](const std::byte* p) {
      for (std::int64_t r = 0; r < repeats; ++r) {
        volatile std::uint64_t used = sum_of_words(p, part);
        static_cast<void>(used);
      }
    });
  });
}

double int8_peak(double seconds) {
  constexpr std::int64_t kRounds = 1000;
  const auto threads = static_cast<std::int64_t>(thread_count());
  const double operations = static_cast<double>(kernels::kernels().int8_peak(kRounds) * threads);
  return best_rate(operations, seconds, [&](std::int64_t repeats) {
    parallel_for(threads, [&](std::int64_t, int) { kernels::kernels().int8_peak(kRounds * repeats); });
  });
}

std::uint64_t uncached_bytes() {
  const long last_level = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const std::uint64_t cache = last_level > 0 ? static_cast<std::uint64_t>(last_level) : 0;
  return std::clamp<std::uint64_t>(2 * cache, std::uint64_t{256} << 20, std::uint64_t{1} << 30);
}

Limits measure_limits(std::uint64_t model_bytes) {
  constexpr double kSeconds = 0.25;
  Limits l;
  l.int8_operations_per_s = int8_peak(kSeconds);
  l.memory_buffer_bytes = uncached_bytes();
  l.memory_bytes_per_s = read_bandwidth(l.memory_buffer_bytes, kSeconds);
  l.model_buffer_bytes = std::clamp<std::uint64_t>(model_bytes, 1, l.memory_buffer_bytes);
  l.model_bytes_per_s = read_bandwidth(l.model_buffer_bytes, kSeconds);
  return l;
}

PassCost pass_cost(std::span<const TensorInfo> tensors, const model::ModelConfig& config, std::int64_t rows) {
  PassCost cost;
  for (const TensorInfo& t : tensors) {
    const auto bytes = static_cast<double>(t.bytes());
    const auto elements = static_cast<double>(t.shape.elements());
    const bool embedding = t.name == "token_embd.weight";
    if (t.name == "output.weight" || (embedding && config.tied_head)) {
      cost.weight_bytes += bytes;
      cost.head_products += elements;
    } else if (embedding || t.name == "position_embd.weight") {
      const auto table_rows = static_cast<double>(t.shape.rows());
      cost.weight_bytes += bytes * std::min(1.0, static_cast<double>(rows) / table_rows);
    } else if (t.shape.rank() == 3 && config.n_expert > 0) {
      const auto n = static_cast<double>(config.n_expert);
      const auto used = static_cast<double>(config.n_expert_used);
      cost.weight_bytes += bytes * std::min(1.0, used * static_cast<double>(rows) / n);
      cost.layer_products += elements * used / n;
    } else {
      cost.weight_bytes += bytes;
      if (t.shape.rank() == 2) cost.layer_products += elements;
    }
  }
  return cost;
}

double attended_positions(const model::ModelConfig& config, std::int64_t position) {
  double sum = 0;
  for (const model::LayerConfig& layer : config.layers) {
    const bool windowed = layer.sliding && config.sliding_window > 0;
    sum += static_cast<double>(windowed ? std::min(position + 1, config.sliding_window) : position + 1);
  }
  return sum;
}

}  // namespace narrow::eval

// What the micro-benchmarks share. One thread each; names are <kernel>/<instruction set>[/<format>]/<sizes>.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "kernels/dispatch.h"

namespace narrow::micro {

inline std::vector<float> random_floats(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal();
  return v;
}

// Shown as units per second: weights, B (bytes read), MAC (multiplications).
inline void count(benchmark::State& state, const char* name, double per_iteration) {
  state.counters[name] = benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
}

// m quantized activation rows.
class Activations {
 public:
  Activations(const kernels::KernelTable& kt, std::int64_t m, std::int64_t k)
      : q_(static_cast<std::size_t>(m * k)),
        scale_(static_cast<std::size_t>(m * k / kernels::kActivationGroup)),
        sums_(static_cast<std::size_t>(m * k / kernels::kSumRun)),
        rows_{q_.data(), scale_.data(), sums_.data(), m, k} {
    const std::vector<float> x = random_floats(m * k, 7);
    for (std::int64_t t = 0; t < m; ++t) {
      kt.quantize_row(x.data() + t * k, k, q_.data() + t * k,
                      scale_.data() + t * (k / kernels::kActivationGroup),
                      sums_.data() + t * (k / kernels::kSumRun));
    }
  }
  const kernels::QuantizedRows& rows() const { return rows_; }

 private:
  AlignedBuffer<std::int8_t> q_;
  AlignedBuffer<float> scale_;
  AlignedBuffer<std::int32_t> sums_;
  kernels::QuantizedRows rows_;
};

// Each registers its benchmarks for one instruction set.
void register_rows(const kernels::KernelTable& kt);
void register_products(const kernels::KernelTable& kt);
void register_attention(const kernels::KernelTable& kt);
// These do not depend on it.
void register_sampling();

}  // namespace narrow::micro

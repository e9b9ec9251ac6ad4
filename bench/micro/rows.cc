// Kernels on one row of activations.
#include "micro/micro.h"

namespace narrow::micro {
namespace {

using kernels::KernelTable;

constexpr std::int64_t kLengths[] = {576, 4096};

// Runs body(x, y, k) over rows of each length. Kernels in place would run away to zeros or infinities if fed
// with their own results, so x is copied from y before each call; the copy is counted with it.
template <class Body>
void each_length(const KernelTable& kt, const char* name, Body body) {
  for (const std::int64_t k : kLengths) {
    const std::string full = fmt::format("{}/{}/k:{}", name, kt.name, k);
    benchmark::RegisterBenchmark(full.c_str(), [k, body](benchmark::State& state) {
      const std::vector<float> y = random_floats(k, 1);
      std::vector<float> x = y;
      for (auto _ : state) {
        x = y;
        body(x.data(), y.data(), k);
        benchmark::DoNotOptimize(x.data());
        benchmark::ClobberMemory();
      }
      count(state, "values", static_cast<double>(k));
    });
  }
}

}  // namespace

void register_rows(const KernelTable& kt) {
  struct Quantized {
    std::vector<std::int8_t> q;
    std::vector<float> scale;
    std::vector<std::int32_t> sums;
  };
  for (const std::int64_t k : kLengths) {
    const auto run = [k](benchmark::State& state, auto quantize) {
      const std::vector<float> x = random_floats(k, 1);
      Quantized out{std::vector<std::int8_t>(static_cast<std::size_t>(k)),
                    std::vector<float>(static_cast<std::size_t>(k / kernels::kActivationGroup)),
                    std::vector<std::int32_t>(static_cast<std::size_t>(k / kernels::kSumRun))};
      for (auto _ : state) {
        quantize(x.data(), out);
        benchmark::ClobberMemory();
      }
      count(state, "values", static_cast<double>(k));
    };
    benchmark::RegisterBenchmark(fmt::format("quantize_row/{}/k:{}", kt.name, k).c_str(),
                                 [run, k, &kt](benchmark::State& state) {
                                   run(state, [&](const float* x, Quantized& out) {
                                     kt.quantize_row(x, k, out.q.data(), out.scale.data(), out.sums.data());
                                   });
                                 });
    benchmark::RegisterBenchmark(
        fmt::format("rms_norm_quantize/{}/k:{}", kt.name, k).c_str(), [run, k, &kt](benchmark::State& state) {
          const std::vector<float> gain = random_floats(k, 2);
          run(state, [&](const float* x, Quantized& out) {
            kt.rms_norm_quantize(x, gain.data(), 1e-5f, k, out.q.data(), out.scale.data(), out.sums.data());
          });
        });
  }
  each_length(kt, "rms_norm",
              [&kt](float* x, const float* gain, std::int64_t k) { kt.rms_norm(x, gain, 1e-5f, x, k); });
  each_length(kt, "layer_norm", [&kt](float* x, const float* gain, std::int64_t k) {
    kt.layer_norm(x, gain, gain, 1e-5f, x, k);
  });
  each_length(kt, "softmax", [&kt](float* x, const float*, std::int64_t k) { kt.softmax(x, k); });
  each_length(kt, "silu_mul", [&kt](float* x, const float* up, std::int64_t k) { kt.silu_mul(x, up, k); });
  each_length(kt, "gelu_tanh_mul",
              [&kt](float* x, const float* up, std::int64_t k) { kt.gelu_tanh_mul(x, up, k); });
  each_length(kt, "rope_half", [&kt](float* x, const float* table, std::int64_t k) {
    kt.rope_half(x, table, table + k / 2, k);
  });
  each_length(kt, "rope_interleaved", [&kt](float* x, const float* table, std::int64_t k) {
    kt.rope_interleaved(x, table, table + k / 2, k);
  });
}

}  // namespace narrow::micro

// Choice of the next token from a large vocabulary.
#include "micro/micro.h"
#include "runtime/sampling/sampler.h"

namespace narrow::micro {
namespace {

void sample(benchmark::State& state, const runtime::SamplerOptions& options, std::int64_t n_vocab) {
  auto sampler = runtime::Sampler::create(options);
  if (!sampler.ok()) {
    state.SkipWithError(sampler.error().message.c_str());
    return;
  }
  std::vector<float> logits = random_floats(n_vocab, 10);
  for (float& l : logits) l *= 4.0f;
  std::vector<std::int32_t> history;
  for (std::int32_t i = 0; i < 64; ++i) history.push_back(i * 7);
  for (auto _ : state) {
    const auto id = sampler->sample(logits, history);
    if (!id.ok()) {
      state.SkipWithError(id.error().message.c_str());
      return;
    }
    benchmark::DoNotOptimize(*id);
  }
  count(state, "logits", static_cast<double>(n_vocab));
}

}  // namespace

void register_sampling() {
  struct Case {
    const char* name;
    runtime::SamplerOptions options;
  };
  for (const auto& [name, options] : {
           Case{"greedy", {.temperature = 0.0f}},
           Case{"default", {}},
           Case{"top_p_only", {.top_k = 0, .min_p = 0.0f}},
           Case{"repeat_penalty", {.repeat_penalty = 1.1f}},
       }) {
    for (const std::int64_t n_vocab : {49152, 262144}) {
      benchmark::RegisterBenchmark(
          fmt::format("sample/{}/vocabulary:{}", name, n_vocab).c_str(),
          [o = options, n_vocab](benchmark::State& state) { sample(state, o, n_vocab); });
    }
  }
}

}  // namespace narrow::micro

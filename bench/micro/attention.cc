// Attention of one key head's queries over cached positions.
#include "kernels/attention.h"

#include "micro/micro.h"

namespace narrow::micro {
namespace {

constexpr std::int64_t kHeadDim = 64, kGroup = 3;

void attend(benchmark::State& state, const kernels::AttentionKernels& kernel,
            const kernels::HeadLayout& layout, std::int64_t positions, std::int64_t tokens) {
  const std::int64_t n_pages = (positions + kernels::kPagePositions - 1) / kernels::kPagePositions;
  AlignedBuffer<std::byte> memory(layout.bytes * static_cast<std::size_t>(n_pages));
  std::vector<const std::byte*> pages;
  for (std::int64_t p = 0; p < n_pages; ++p)
    pages.push_back(memory.data() + layout.bytes * static_cast<std::size_t>(p));
  const std::vector<float> kv = random_floats(2 * positions * kHeadDim, 8);
  for (std::int64_t p = 0; p < positions; ++p) {
    kernel.store(layout, kv.data() + 2 * p * kHeadDim, kv.data() + (2 * p + 1) * kHeadDim,
                 p % kernels::kPagePositions,
                 memory.data() + layout.bytes * static_cast<std::size_t>(p / kernels::kPagePositions));
  }
  const std::vector<float> q = random_floats(tokens * kGroup * kHeadDim, 9);
  kernels::AttentionItem item;
  item.q = q.data();
  item.q_stride = kGroup * kHeadDim;
  item.tokens = tokens;
  item.group = kGroup;
  item.first = positions - tokens;
  item.end = positions;
  item.pages = pages.data();
  item.scale = 0.125f;
  const auto rows = static_cast<std::size_t>(item.rows());
  AlignedBuffer<float> acc(rows * static_cast<std::size_t>(layout.padded_dim)), max(rows), sum(rows);
  AlignedBuffer<float> scratch(kernels::attention_scratch_floats(layout, item.rows()));
  for (auto _ : state) {
    kernel.attend(layout, item, acc.data(), max.data(), sum.data(), scratch.data());
    benchmark::ClobberMemory();
  }
  // Query row t sees positions - tokens + t + 1 positions; keys and values are multiplied once each.
  double seen = 0;
  for (std::int64_t t = 0; t < tokens; ++t) seen += static_cast<double>(item.first + t + 1);
  count(state, "MAC", 2 * static_cast<double>(kGroup * kHeadDim) * seen);
  count(state, "B", static_cast<double>(memory.size()));
}

}  // namespace

void register_attention(const kernels::KernelTable& kt) {
  if (kt.attention == nullptr) return;
  for (const Format format : {Format::kF32, Format::kF16, Format::kQ8_0, Format::kQ4_0}) {
    const auto layout = kernels::head_layout(format, format, kHeadDim, false);
    if (!layout.ok()) continue;
    for (const auto& [positions, tokens] :
         {std::pair<std::int64_t, std::int64_t>{512, 1}, {4096, 1}, {512, 64}}) {
      const std::string name = fmt::format("attention/{}/{}/positions:{}/tokens:{}", kt.name,
                                           format_info(format).name, positions, tokens);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [&kt, l = *layout, p = positions, t = tokens](benchmark::State& state) {
                                     attend(state, *kt.attention, l, p, t);
                                   });
    }
  }
}

}  // namespace narrow::micro

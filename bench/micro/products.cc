// Products of stored and of packed weights with activations.
#include "formats/format.h"
#include "kernels/dense_int8.h"
#include "micro/micro.h"

namespace narrow::micro {
namespace {

using kernels::KernelTable;

// A matrix of a small model's feed-forward; with q8_0 it is 1 MB and so stays in the second-level cache: this
// is the arithmetic, the memory is measured by `narrow bench`.
constexpr std::int64_t kFeatures = 1536, kInputs = 768;
constexpr std::int64_t kTokens[] = {1, 8, 512};

std::vector<std::byte> stored_rows(const FormatInfo& f, std::int64_t n, std::int64_t k) {
  const std::size_t row = row_bytes(f.format, k);
  std::vector<std::byte> out(row * static_cast<std::size_t>(n));
  const std::vector<float> w = random_floats(n * k, 3);
  for (std::int64_t r = 0; r < n; ++r)
    f.encode(w.data() + r * k, out.data() + static_cast<std::size_t>(r) * row, k, {.search = false});
  return out;
}

void count_product(benchmark::State& state, std::int64_t m, double bytes) {
  const double weights = static_cast<double>(kFeatures * kInputs);
  count(state, "weights", weights);
  count(state, "B", bytes);
  count(state, "MAC", weights * static_cast<double>(m));
}

void vec_dot(benchmark::State& state, kernels::VecDot dot, const FormatInfo& f) {
  const std::vector<std::byte> rows = stored_rows(f, kFeatures, kInputs);
  const std::vector<float> x = random_floats(kInputs, 4);
  const std::size_t row = row_bytes(f.format, kInputs);
  for (auto _ : state) {
    for (std::int64_t n = 0; n < kFeatures; ++n)
      benchmark::DoNotOptimize(dot(rows.data() + static_cast<std::size_t>(n) * row, x.data(), kInputs));
  }
  count_product(state, 1, static_cast<double>(rows.size()));
}

void packed(benchmark::State& state, const KernelTable& kt, const kernels::PackedKernel& kernel,
            const FormatInfo& f, std::int64_t m) {
  const std::vector<std::byte> rows = stored_rows(f, kFeatures, kInputs);
  const std::size_t row = row_bytes(f.format, kInputs), panel = kernel.panel_bytes(kInputs);
  const std::int64_t panels = (kFeatures + kt.panel_rows - 1) / kt.panel_rows;
  AlignedBuffer<std::byte> weights(panel * static_cast<std::size_t>(panels));
  for (std::int64_t p = 0; p < panels; ++p) {
    const std::int64_t begin = p * kt.panel_rows;
    kernel.pack(rows.data() + static_cast<std::size_t>(begin) * row, row,
                std::min<std::int64_t>(kt.panel_rows, kFeatures - begin), kInputs,
                weights.data() + static_cast<std::size_t>(p) * panel);
  }
  const Activations x(kt, m, kInputs);
  AlignedBuffer<float> out(static_cast<std::size_t>(m * kFeatures));
  AlignedBuffer<std::byte> scratch(kernel.scratch_bytes(kInputs, m));
  for (auto _ : state) {
    kernel.multiply(weights.data(), kFeatures, x.rows(), out.data(), kFeatures, scratch.data());
    benchmark::ClobberMemory();
  }
  count_product(state, m, static_cast<double>(weights.size()));
}

void dense_int8(benchmark::State& state, const kernels::DenseInt8Kernel& kernel, bool asymmetric,
                std::int64_t m) {
  const std::size_t panel = kernel.panel_bytes(kInputs);
  std::vector<std::int8_t> codes(static_cast<std::size_t>(kFeatures * kInputs));
  Rng rng(5);
  for (std::int8_t& c : codes) c = static_cast<std::int8_t>(rng.next_u64() % 255);
  const std::vector<float> scale(static_cast<std::size_t>(kFeatures), 0.01f);
  AlignedBuffer<std::byte> weights(panel * (kFeatures / kernels::kDenseInt8PanelRows));
  static_assert(kFeatures % kernels::kDenseInt8PanelRows == 0);
  for (std::int64_t n = 0; n < kFeatures; n += kernels::kDenseInt8PanelRows) {
    kernel.pack(codes.data() + n * kInputs, kInputs, scale.data() + n, nullptr, kernels::kDenseInt8PanelRows,
                kInputs, weights.data() + panel * static_cast<std::size_t>(n / kernels::kDenseInt8PanelRows));
  }
  const std::vector<float> x = random_floats(m * kInputs, 6);
  const std::int64_t stride = kernels::dense_int8_stride(kInputs);
  AlignedBuffer<std::int8_t> q(static_cast<std::size_t>(m * stride));
  std::vector<float> dx(static_cast<std::size_t>(m));
  std::vector<std::int32_t> zero(dx.size()), sum(dx.size());
  for (std::int64_t t = 0; t < m; ++t) {
    const auto i = static_cast<std::size_t>(t);
    kernel.quantize_row({.asymmetric = asymmetric}, x.data() + t * kInputs, kInputs, q.data() + t * stride,
                        &dx[i], &zero[i], &sum[i]);
  }
  AlignedBuffer<float> out(static_cast<std::size_t>(m * kFeatures));
  for (auto _ : state) {
    kernel.multiply(weights.data(), kFeatures, {q.data(), dx.data(), zero.data(), sum.data(), m, kInputs},
                    out.data(), kFeatures);
    benchmark::ClobberMemory();
  }
  count_product(state, m, static_cast<double>(weights.size()));
}

}  // namespace

void register_products(const KernelTable& kt) {
  for (const FormatInfo& f : all_formats()) {
    const auto slot = static_cast<std::size_t>(f.format);
    if (slot >= kernels::kVecDotSlots || !f.can_encode()) continue;
    if (const kernels::VecDot dot = kt.vec_dot[slot]; dot != nullptr) {
      benchmark::RegisterBenchmark(fmt::format("vec_dot/{}/{}", kt.name, f.name).c_str(),
                                   [dot, &f](benchmark::State& state) { vec_dot(state, dot, f); });
    }
    const kernels::PackedKernel* kernel = kt.packed[slot];
    if (kernel == nullptr) continue;
    for (const std::int64_t m : kTokens) {
      benchmark::RegisterBenchmark(
          fmt::format("packed/{}/{}/m:{}", kt.name, f.name, m).c_str(),
          [&kt, kernel, &f, m](benchmark::State& state) { packed(state, kt, *kernel, f, m); });
    }
  }
  if (kt.dense_int8 == nullptr) return;
  for (const bool asymmetric : {false, true}) {
    for (const std::int64_t m : kTokens) {
      benchmark::RegisterBenchmark(
          fmt::format("dense_int8/{}/{}/m:{}", kt.name, asymmetric ? "asymmetric" : "symmetric", m).c_str(),
          [&kt, asymmetric, m](benchmark::State& state) {
            dense_int8(state, *kt.dense_int8, asymmetric, m);
          });
    }
  }
}

}  // namespace narrow::micro

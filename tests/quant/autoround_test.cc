#include "quant/autoround.h"

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "base/thread_team.h"
#include "formats/grid.h"
#include "quant/layer.h"
#include "quant/rtn.h"
#include "testing/testing.h"

namespace narrow::quant {
namespace {

TEST(AutoRound, EveryRowIsAtLeastAsGoodAsRoundingAndTheMatrixMuchBetter) {
  const Layer layer;
  for (const FormatInfo& info : all_formats()) {
    if (formats::grid_codec(info.format) == nullptr || !info.can_encode()) continue;
    QuantizeSpec spec;
    spec.format = info.format;
    std::vector<std::byte> nearest(kRows * row_bytes(info.format, kColumns)), learned(nearest.size());
    ASSERT_OK(quantize_rtn(layer.w.data(), kRows, kColumns, layer.stats, spec, nearest.data(), nullptr));
    ASSERT_OK(
        quantize_autoround(layer.w.data(), kRows, kColumns, layer.stats, spec, learned.data(), nullptr));
    const std::vector<double> before = layer.errors(info.format, nearest);
    const std::vector<double> after = layer.errors(info.format, learned);
    double sum_before = 0, sum_after = 0;
    for (std::size_t r = 0; r < before.size(); ++r) {
      EXPECT_LE(after[r], before[r] * (1 + 1e-6)) << info.name << " row " << r;
      sum_before += before[r];
      sum_after += after[r];
    }
    RecordProperty(std::string(info.name), std::to_string(sum_after / sum_before));
    EXPECT_LE(sum_after, 0.8 * sum_before) << info.name;
  }
}

TEST(AutoRound, SameBytesForAnyNumberOfThreads) {
  const Layer layer;
  for (const Format f : {Format::kQ4_0, Format::kQ2_K, Format::kIQ4_XS}) {
    QuantizeSpec spec;
    spec.format = f;
    std::vector<std::byte> one(kRows * row_bytes(f, kColumns)), three(one.size());
    WeightError a, b;
    set_thread_count(1);
    ASSERT_OK(quantize_autoround(layer.w.data(), kRows, kColumns, layer.stats, spec, one.data(), &a));
    set_thread_count(3);
    ASSERT_OK(quantize_autoround(layer.w.data(), kRows, kColumns, layer.stats, spec, three.data(), &b));
    set_thread_count(0);
    EXPECT_EQ(one, three);
    EXPECT_EQ(a.sum_squared_error, b.sum_squared_error);
  }
}

// Inputs that are always 0, and Hessians of nothing.
TEST(AutoRound, DeadInputsAreHarmless) {
  Layer layer;
  for (std::size_t j = 0; j < kColumns; ++j) {
    layer.hessian[3 * kColumns + j] = layer.hessian[j * kColumns + 3] = 0.0f;
  }
  layer.mean_square[3] = 0.0f;
  QuantizeSpec spec;
  spec.format = Format::kQ4_K;
  std::vector<std::byte> out(kRows * row_bytes(spec.format, kColumns));
  WeightError error;
  ASSERT_OK(quantize_autoround(layer.w.data(), kRows, kColumns, layer.stats, spec, out.data(), &error));
  EXPECT_LT(error.relative_rms(), 0.2);
  std::fill(layer.hessian.begin(), layer.hessian.end(), 0.0f);
  std::fill(layer.mean_square.begin(), layer.mean_square.end(), 0.0f);
  ASSERT_OK(quantize_autoround(layer.w.data(), kRows, kColumns, layer.stats, spec, out.data(), &error));
  EXPECT_LT(error.relative_rms(), 0.2);
}

TEST(AutoRound, RefusesWhatItCannotDo) {
  const Layer layer;
  const auto run = [&](Format f, const LayerStats& stats) {
    QuantizeSpec spec;
    spec.format = f;
    std::vector<std::byte> out(kRows * row_bytes(f, kColumns));
    const Status s = quantize_autoround(layer.w.data(), kRows, kColumns, stats, spec, out.data(), nullptr);
    return s.ok() ? std::string() : s.error().message;
  };
  EXPECT_EQ(run(Format::kQ4_0, {}), "autoround: it needs the Hessian of the inputs");
  EXPECT_EQ(run(Format::kF16, layer.stats), "autoround: f16 has no codes that can be chosen one by one");
  LayerStats stats = layer.stats;
  stats.hessian = stats.hessian.first(100);
  EXPECT_EQ(run(Format::kQ4_0, stats), "autoround: a Hessian of 100 values for 256 inputs");
}

}  // namespace
}  // namespace narrow::quant

#include "quant/hqq.h"

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "base/thread_team.h"
#include "quant/rtn.h"
#include "testing/testing.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kRows = 12, kColumns = 512;

// Weights with heavy tails, as trained ones have.
std::vector<float> heavy_tailed() {
  Rng rng(8);
  std::vector<float> w;
  for (std::int64_t i = 0; i < kRows * kColumns; ++i) {
    const float x = rng.normal();
    w.push_back(0.02f * x * (i % 61 == 0 ? 5.0f : 1.0f));
  }
  return w;
}

double loss_of(const std::vector<float>& w, Format f, const std::vector<std::byte>& stored) {
  std::vector<float> y(w.size());
  EXPECT_OK(decode_row(f, stored.data(), y.data(), static_cast<std::int64_t>(y.size())));
  return half_quadratic_loss(w.data(), y.data(), static_cast<std::int64_t>(w.size()));
}

TEST(Hqq, LosesNoMoreThanRoundingInEveryFormatAndLessInSome) {
  const std::vector<float> w = heavy_tailed();
  int better = 0;
  for (const FormatInfo& info : all_formats()) {
    if (!info.can_encode()) continue;
    std::vector<std::byte> nearest(kRows * row_bytes(info.format, kColumns)), learned(nearest.size());
    QuantizeSpec spec;
    spec.format = info.format;
    ASSERT_OK(quantize_rtn(w.data(), kRows, kColumns, {}, spec, nearest.data(), nullptr));
    ASSERT_OK(quantize_hqq(w.data(), kRows, kColumns, {}, spec, learned.data(), nullptr));
    const double before = loss_of(w, info.format, nearest), after = loss_of(w, info.format, learned);
    EXPECT_LE(after, before) << info.name;
    better += after < 0.995 * before;
    EXPECT_TRUE(info.kind != FormatKind::kFloat || learned == nearest) << info.name;
  }
  EXPECT_GE(better, 5);
}

TEST(Hqq, SameBytesAndErrorForAnyNumberOfThreads) {
  const std::vector<float> w = heavy_tailed();
  for (const Format f : {Format::kQ4_0, Format::kQ3_K}) {
    QuantizeSpec spec;
    spec.format = f;
    std::vector<std::byte> one(kRows * row_bytes(f, kColumns)), three(one.size());
    WeightError a, b;
    set_thread_count(1);
    ASSERT_OK(quantize_hqq(w.data(), kRows, kColumns, {}, spec, one.data(), &a));
    set_thread_count(3);
    ASSERT_OK(quantize_hqq(w.data(), kRows, kColumns, {}, spec, three.data(), &b));
    set_thread_count(0);
    EXPECT_EQ(one, three);
    EXPECT_EQ(a.sum_squared_error, b.sum_squared_error);
    EXPECT_GT(a.sum_squared_error, 0.0);
  }
}

TEST(Hqq, RefusesWhatItCannotDo) {
  std::vector<float> w = heavy_tailed();
  QuantizeSpec spec;
  spec.format = Format::kQ4_K;
  std::vector<std::byte> out(kRows * row_bytes(spec.format, kColumns));
  EXPECT_EQ(quantize_hqq(w.data(), kRows, 100, {}, spec, out.data(), nullptr).error().message,
            "q4_k: row length 100 is not a multiple of its block of 256");
  w[static_cast<std::size_t>(2 * kColumns + 7)] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(quantize_hqq(w.data(), kRows, kColumns, {}, spec, out.data(), nullptr).error().message,
            "weight at row 2, column 7 is nan; a model with such weights cannot be quantized");
  const std::vector<float> zeros(w.size(), 0.0f);
  WeightError error;
  ASSERT_OK(quantize_hqq(zeros.data(), kRows, kColumns, {}, spec, out.data(), &error));
  EXPECT_EQ(error.sum_squared_error, 0.0);
}

}  // namespace
}  // namespace narrow::quant

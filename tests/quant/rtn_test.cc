// Round to nearest over whole matrices: rows, threads, reported errors and refusals.
#include "quant/rtn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "base/thread_team.h"
#include "testing/testing.h"

namespace narrow::quant {
namespace {

std::vector<float> matrix(std::int64_t n, std::int64_t k, std::uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<float> w(static_cast<std::size_t>(n * k));
  for (float& v : w) v = 0.05f * rng.normal();
  return w;
}

std::vector<std::byte> out_buffer(Format f, std::int64_t n, std::int64_t k) {
  return std::vector<std::byte>(static_cast<std::size_t>(n) * row_bytes(f, k));
}

class ThreadCount {
 public:
  explicit ThreadCount(int n) : before_(thread_count()) { set_thread_count(n); }
  ~ThreadCount() { set_thread_count(before_); }

 private:
  int before_;
};

TEST(Rtn, EqualsTheRowEncoderOfTheFormat) {
  constexpr std::int64_t kRows = 7, kColumns = 512;
  const std::vector<float> w = matrix(kRows, kColumns);
  for (const FormatInfo& f : all_formats()) {
    if (!f.can_encode()) continue;
    for (const bool search : {false, true}) {
      std::vector<std::byte> got = out_buffer(f.format, kRows, kColumns), want = got;
      EncodeOptions options;
      options.search = search;
      const std::size_t stride = row_bytes(f.format, kColumns);
      for (std::size_t r = 0; r < kRows; ++r) {
        ASSERT_OK(encode_row(f.format, w.data() + r * kColumns, want.data() + r * stride, kColumns, options));
      }
      ASSERT_OK(quantize_rtn(w.data(), kRows, kColumns, {}, {f.format, search}, got.data(), nullptr));
      EXPECT_EQ(got, want) << f.name;
    }
  }
}

TEST(Rtn, SameBytesAndSameErrorForAnyThreadCount) {
  constexpr std::int64_t kRows = 300, kColumns = 1024;
  const std::vector<float> w = matrix(kRows, kColumns);
  for (const Format f : {Format::kQ8_0, Format::kQ4_K, Format::kQ4_0}) {
    std::vector<std::byte> first = out_buffer(f, kRows, kColumns);
    WeightError first_error;
    for (const int threads : {1, 2, 3, 8}) {
      const ThreadCount scope(threads);
      std::vector<std::byte> out = out_buffer(f, kRows, kColumns);
      WeightError error;
      ASSERT_OK(quantize_rtn(w.data(), kRows, kColumns, {}, {f, true}, out.data(), &error));
      if (threads == 1) {
        first = out;
        first_error = error;
      }
      EXPECT_EQ(out, first) << threads;
      EXPECT_EQ(error.sum_squared_error, first_error.sum_squared_error) << threads;
      EXPECT_EQ(error.sum_squared_weight, first_error.sum_squared_weight) << threads;
      EXPECT_EQ(error.max_abs_error, first_error.max_abs_error) << threads;
    }
  }
}

TEST(Rtn, ReportsTheErrorOfTheDecodedRows) {
  constexpr std::int64_t kRows = 5, kColumns = 256;
  const std::vector<float> w = matrix(kRows, kColumns);
  std::vector<std::byte> out = out_buffer(Format::kQ4_K, kRows, kColumns);
  WeightError error;
  ASSERT_OK(quantize_rtn(w.data(), kRows, kColumns, {}, {Format::kQ4_K, true}, out.data(), &error));
  double sse = 0, ssw = 0, greatest = 0;
  std::vector<float> y(w.size());
  ASSERT_OK(decode_row(Format::kQ4_K, out.data(), y.data(), kRows * kColumns));
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double d = static_cast<double>(w[i]) - static_cast<double>(y[i]);
    sse += d * d;
    ssw += static_cast<double>(w[i]) * static_cast<double>(w[i]);
    greatest = std::max(greatest, std::fabs(d));
  }
  EXPECT_NEAR(error.sum_squared_error, sse, 1e-12 * ssw);
  EXPECT_NEAR(error.sum_squared_weight, ssw, 1e-12 * ssw);
  EXPECT_FLOAT_EQ(error.max_abs_error, static_cast<float>(greatest));
  EXPECT_NEAR(error.relative_rms(), std::sqrt(sse / ssw), 1e-9);
  EXPECT_NEAR(error.sqnr_db(), -20 * std::log10(error.relative_rms()), 1e-9);
  EXPECT_LE(error.relative_rms(), 1.1 * format_info(Format::kQ4_K).rms_budget);
}

TEST(Rtn, NamesTheFirstNonFiniteWeight) {
  constexpr std::int64_t kRows = 400, kColumns = 1024;
  std::vector<float> w = matrix(kRows, kColumns);
  w[123 * kColumns + 77] = std::numeric_limits<float>::quiet_NaN();
  w[123 * kColumns + 900] = std::numeric_limits<float>::infinity();
  w[390 * kColumns + 3] = -std::numeric_limits<float>::infinity();
  std::vector<std::byte> out = out_buffer(Format::kQ8_0, kRows, kColumns);
  for (const int threads : {1, 4}) {
    const ThreadCount scope(threads);
    const Status s = quantize_rtn(w.data(), kRows, kColumns, {}, {}, out.data(), nullptr);
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, ErrorCode::kNumeric);
    EXPECT_NE(s.error().message.find("row 123, column 77 is nan"), std::string::npos) << s.error().message;
  }
}

TEST(Rtn, ImportancesReachEveryRow) {
  constexpr std::int64_t kRows = 40, kColumns = 512;
  const std::vector<float> w = matrix(kRows, kColumns);
  Rng rng(9);
  std::vector<float> mean_square(kColumns);
  for (float& v : mean_square) v = std::exp(2 * rng.normal());
  std::vector<std::byte> plain = out_buffer(Format::kQ4_0, kRows, kColumns), weighted = plain;
  ASSERT_OK(quantize_rtn(w.data(), kRows, kColumns, {}, {Format::kQ4_0, true}, plain.data(), nullptr));
  ASSERT_OK(quantize_rtn(w.data(), kRows, kColumns, {mean_square}, {Format::kQ4_0, true}, weighted.data(),
                         nullptr));
  const auto loss = [&](const std::vector<std::byte>& bytes, std::size_t row) {
    std::vector<float> y(kColumns);
    EXPECT_OK(decode_row(Format::kQ4_0, bytes.data() + row * row_bytes(Format::kQ4_0, kColumns), y.data(),
                         kColumns));
    double sum = 0;
    for (std::size_t i = 0; i < kColumns; ++i) {
      const double d = static_cast<double>(w[row * kColumns + i]) - static_cast<double>(y[i]);
      sum += static_cast<double>(mean_square[i]) * d * d;
    }
    return sum;
  };
  double sum_plain = 0, sum_weighted = 0;
  int better = 0;
  for (std::size_t r = 0; r < kRows; ++r) {
    sum_plain += loss(plain, r);
    sum_weighted += loss(weighted, r);
    better += loss(weighted, r) < loss(plain, r) ? 1 : 0;
  }
  EXPECT_LT(sum_weighted, 0.95 * sum_plain);
  EXPECT_GE(better, 36);
}

TEST(Rtn, RefusesWhatItCannotDo) {
  const std::vector<float> w = matrix(2, 576);
  std::vector<std::byte> out(8192);
  const auto run = [&](Format f, std::int64_t k, std::span<const float> importance) {
    return quantize_rtn(w.data(), 2, k, {importance}, {f, true}, out.data(), nullptr);
  };
  const Status length = run(Format::kQ4_K, 576, {});
  ASSERT_FALSE(length.ok());
  EXPECT_EQ(length.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(length.error().message, "q4_k: row length 576 is not a multiple of its block of 256");
  EXPECT_EQ(run(Format::kI32, 256, {}).error().code, ErrorCode::kUnsupported);
  const Status importance = run(Format::kQ8_0, 576, std::span(w).first(100));
  ASSERT_FALSE(importance.ok());
  EXPECT_EQ(importance.error().message, "rtn: importances for 100 inputs, but the rows have 576");
  EXPECT_OK(quantize_rtn(nullptr, 0, 256, {}, {Format::kQ4_K, true}, nullptr, nullptr));
}

TEST(Rtn, AllZeroMatrixHasNoError) {
  const std::vector<float> w(1024, 0.0f);
  std::vector<std::byte> out = out_buffer(Format::kQ6_K, 4, 256);
  WeightError error;
  error.max_abs_error = 5;
  ASSERT_OK(quantize_rtn(w.data(), 4, 256, {}, {Format::kQ6_K, true}, out.data(), &error));
  EXPECT_EQ(error.sum_squared_error, 0);
  EXPECT_EQ(error.max_abs_error, 0);
  EXPECT_EQ(error.relative_rms(), 0);
  EXPECT_TRUE(std::isinf(error.sqnr_db()));
}

TEST(Registry, MethodsAreFoundByName) {
  ASSERT_NE(find_method("rtn"), nullptr);
  EXPECT_EQ(find_method("rtn")->quantize, &quantize_rtn);
  EXPECT_EQ(find_method("rtn")->needs, Needs::kNothing);
  EXPECT_EQ(find_method("RTN "), nullptr);
  EXPECT_EQ(find_method(""), nullptr);
  for (const Method& m : all_methods()) {
    EXPECT_EQ(find_method(m.name), &m);
    EXPECT_FALSE(m.description.empty());
  }
}

}  // namespace
}  // namespace narrow::quant

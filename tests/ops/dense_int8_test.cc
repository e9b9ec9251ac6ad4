#include "ops/dense_int8.h"

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "base/thread_team.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed, float shift = 0.0f) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal() + shift;
  return v;
}

std::vector<float> product(const std::vector<float>& x, std::int64_t m, const DenseInt8Weight& w,
                           const kernels::DenseInt8Scheme& scheme, int threads) {
  set_thread_count(threads);
  DenseInt8Activations a;
  EXPECT_OK(a.assign({x.data(), m, w.k()}, scheme));
  std::vector<float> y(static_cast<std::size_t>(m * w.n()), -1.0f);
  EXPECT_OK(matmul(a, w, Matrix(y.data(), m, w.n())));
  set_thread_count(0);
  return y;
}

// |y - x W^T| relative to |x W^T| in double.
double relative_error(const std::vector<float>& y, const std::vector<float>& x, const std::vector<float>& w,
                      std::int64_t m, std::int64_t n, std::int64_t k) {
  double error = 0, norm = 0;
  for (std::int64_t t = 0; t < m; ++t) {
    for (std::int64_t r = 0; r < n; ++r) {
      double want = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        want += static_cast<double>(x[static_cast<std::size_t>(t * k + i)]) *
                w[static_cast<std::size_t>(r * k + i)];
      }
      const double d = y[static_cast<std::size_t>(t * n + r)] - want;
      error += d * d;
      norm += want * want;
    }
  }
  return std::sqrt(error / norm);
}

TEST(DenseInt8Ops, ProductsAreNearThoseOfFloats) {
  const std::int64_t n = 75, k = 300;
  // Shifted, so that asymmetric codes have something to gain.
  const std::vector<float> weights = random_vector(n * k, 1, 0.7f), wide = random_vector(40 * k, 2, 1.5f);
  for (const bool asymmetric_weights : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const DenseInt8Codes codes,
                         quantize_dense(weights.data(), n, k, asymmetric_weights));
    ASSERT_OK_AND_ASSIGN(const DenseInt8Weight w, pack_dense(codes));
    for (const std::int64_t m : {1, 5, 40}) {
      for (const kernels::DenseInt8Scheme& scheme :
           {kernels::DenseInt8Scheme{false, 0.0f, 0}, kernels::DenseInt8Scheme{true, 0.0f, 0},
            kernels::DenseInt8Scheme{false, 0.05f, 0}, kernels::DenseInt8Scheme{true, 0.04f, -60}}) {
        const std::vector<float> x(wide.begin(), wide.begin() + m * k);
        const std::vector<float> y = product(x, m, w, scheme, 2);
        EXPECT_LT(relative_error(y, x, weights, m, n, k), 0.01) << m << scheme.asymmetric << scheme.scale;
      }
    }
  }
}

TEST(DenseInt8Ops, CodesAreWithinHalfAStep) {
  const std::int64_t n = 7, k = 130;
  const std::vector<float> weights = random_vector(n * k, 3, 0.4f);
  for (const bool asymmetric : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const DenseInt8Codes c, quantize_dense(weights.data(), n, k, asymmetric));
    for (std::size_t i = 0; i < c.codes.size(); ++i) {
      const std::size_t r = i / static_cast<std::size_t>(k);
      const float z = asymmetric ? c.zero[r] : 0.0f;
      EXPECT_NEAR(c.scale[r] * (c.codes[i] - z), weights[i], (asymmetric ? 1.01f : 0.501f) * c.scale[r]);
      EXPECT_GE(c.codes[i], asymmetric ? -128 : -127);
    }
  }
}

TEST(DenseInt8Ops, ThreadsAndListsChangeNothing) {
  const std::int64_t m = 21, k = 576;
  const std::vector<float> x = random_vector(m * k, 4);
  const std::vector<float> first = random_vector(530 * k, 5), second = random_vector(33 * k, 6);
  ASSERT_OK_AND_ASSIGN(const DenseInt8Codes first_codes, quantize_dense(first.data(), 530, k));
  ASSERT_OK_AND_ASSIGN(const DenseInt8Codes second_codes, quantize_dense(second.data(), 33, k));
  ASSERT_OK_AND_ASSIGN(const DenseInt8Weight a, pack_dense(first_codes));
  ASSERT_OK_AND_ASSIGN(const DenseInt8Weight b, pack_dense(second_codes));
  const std::vector<float> one = product(x, m, a, {}, 1), other = product(x, m, b, {}, 1);
  EXPECT_EQ(product(x, m, a, {}, 3), one);
  // Both in one call, into one matrix.
  DenseInt8Activations rows;
  ASSERT_OK(rows.assign({x.data(), m, k}, {}));
  std::vector<float> y(static_cast<std::size_t>(m * 563));
  const Matrix out(y.data(), m, 563);
  const DenseInt8Product products[] = {{&a, out.columns(0, 530)}, {&b, out.columns(530, 33)}};
  ASSERT_OK(matmul(rows, products));
  for (std::size_t t = 0; t < static_cast<std::size_t>(m); ++t) {
    for (std::size_t r = 0; r < 563; ++r) {
      ASSERT_EQ(y[t * 563 + r], r < 530 ? one[t * 530 + r] : other[t * 33 + r - 530]);
    }
  }
}

TEST(DenseInt8Ops, StoredWeightsAreDecodedFirst) {
  const std::int64_t n = 35, k = 256;
  const std::vector<float> x = random_vector(3 * k, 7);
  for (const Format f : {Format::kF32, Format::kBF16, Format::kQ4_K}) {
    std::vector<float> decoded = random_vector(n * k, 8);
    std::vector<std::byte> bytes(static_cast<std::size_t>(n) * row_bytes(f, k));
    for (std::int64_t r = 0; r < n; ++r) {
      std::byte* row = bytes.data() + static_cast<std::size_t>(r) * row_bytes(f, k);
      ASSERT_OK(encode_row(f, decoded.data() + r * k, row, k));
      ASSERT_OK(decode_row(f, row, decoded.data() + r * k, k));
    }
    ASSERT_OK_AND_ASSIGN(const DenseInt8Weight w, pack_dense(TensorView{f, Shape{n, k}, bytes.data()}));
    ASSERT_OK_AND_ASSIGN(const DenseInt8Codes codes, quantize_dense(decoded.data(), n, k));
    ASSERT_OK_AND_ASSIGN(const DenseInt8Weight want, pack_dense(codes));
    EXPECT_EQ(product(x, 3, w, {}, 2), product(x, 3, want, {}, 1));
  }
}

TEST(DenseInt8Ops, WhatCannotBeIsRefused) {
  const std::int64_t k = 64;
  std::vector<float> weights = random_vector(20 * k, 9);
  ASSERT_OK_AND_ASSIGN(const DenseInt8Codes codes, quantize_dense(weights.data(), 20, k));
  ASSERT_OK_AND_ASSIGN(const DenseInt8Weight w, pack_dense(codes));
  DenseInt8Activations x;
  for (const float scale :
       {-1.0f, std::numeric_limits<float>::infinity(), 1e-45f, std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_EQ(x.assign({weights.data(), 2, k}, {false, scale, 0}).error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(x.assign({weights.data(), 2, k}, {true, 1.0f, 128}).error().code, ErrorCode::kInvalidArgument);
  ASSERT_OK(x.assign({weights.data(), 2, k / 2}, {}));
  std::vector<float> y(40);
  const Status shapes = matmul(x, w, Matrix(y.data(), 2, 20));
  ASSERT_FALSE(shapes.ok());
  EXPECT_NE(shapes.error().message.find("[2, 32]"), std::string::npos) << shapes.error().message;

  weights[static_cast<std::size_t>(3 * k + 5)] = std::numeric_limits<float>::infinity();
  const auto infinite = quantize_dense(weights.data(), 20, k);
  ASSERT_FALSE(infinite.ok());
  EXPECT_EQ(infinite.error().code, ErrorCode::kNumeric);
  EXPECT_NE(infinite.error().message.find("row 3"), std::string::npos);
  const auto stored =
      pack_dense(TensorView{Format::kF32, Shape{20, k}, reinterpret_cast<const std::byte*>(weights.data())});
  ASSERT_FALSE(stored.ok());
  EXPECT_EQ(stored.error().message, infinite.error().message);

  DenseInt8Codes long_rows;
  long_rows.n = 1;
  long_rows.k = kernels::kMaxDenseSymmetric + 1;
  EXPECT_EQ(pack_dense(long_rows).error().code, ErrorCode::kInvalidArgument);
  long_rows.k = kernels::kMaxDenseAsymmetric + 1;
  long_rows.zero.resize(1);
  EXPECT_EQ(pack_dense(long_rows).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace narrow::ops

#include "ops/matmul.h"

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "base/thread_team.h"
#include "ops/gemm.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal();
  return v;
}

// A stored weight [n, k] and what it decodes to.
struct Stored {
  std::vector<std::byte> bytes;
  std::vector<float> decoded;
  TensorView view;
};

Stored store(Format format, std::int64_t n, std::int64_t k, std::uint64_t seed) {
  Stored s;
  s.decoded = random_vector(n * k, seed);
  s.bytes.resize(static_cast<std::size_t>(n) * row_bytes(format, k));
  s.view = {format, Shape{n, k}, s.bytes.data()};
  for (std::int64_t r = 0; r < n; ++r) {
    std::byte* row = s.bytes.data() + static_cast<std::size_t>(r) * row_bytes(format, k);
    EXPECT_OK(encode_row(format, s.decoded.data() + r * k, row, k));
    EXPECT_OK(decode_row(format, row, s.decoded.data() + r * k, k));
  }
  return s;
}

std::vector<float> run(ConstMatrix x, const TensorView& w, int threads) {
  set_thread_count(threads);
  std::vector<float> y(static_cast<std::size_t>(x.rows * w.shape[0]), -1.0f);
  EXPECT_OK(matmul(x, w, Matrix(y.data(), x.rows, w.shape[0])));
  set_thread_count(0);
  return y;
}

// Every format that can be written, few and many tokens, more features than one tile, against sums in double.
TEST(Matmul, EveryFormatAgainstDouble) {
  for (const FormatInfo& f : all_formats()) {
    if (!f.can_encode() || f.decode == nullptr) continue;
    const std::int64_t k = 256, n = 259;
    const Stored w = store(f.format, n, k, 1);
    for (const std::int64_t m : {1, 5, 33}) {
      const std::vector<float> x = random_vector(m * k, 2);
      const std::vector<float> y = run({x.data(), m, k}, w.view, 2);
      for (std::int64_t r = 0; r < m; ++r) {
        for (std::int64_t c = 0; c < n; ++c) {
          double want = 0;
          for (std::int64_t i = 0; i < k; ++i) {
            want += static_cast<double>(x[static_cast<std::size_t>(r * k + i)]) *
                    w.decoded[static_cast<std::size_t>(c * k + i)];
          }
          ASSERT_NEAR(y[static_cast<std::size_t>(r * n + c)], want, 5e-4) << f.name << " " << r << "," << c;
        }
      }
    }
  }
}

TEST(Matmul, SameBitsForAnyNumberOfThreads) {
  for (const Format f : {Format::kF32, Format::kBF16, Format::kQ8_0, Format::kQ4_K}) {
    for (const std::int64_t m : {1, 2, 31, 200}) {
      const std::int64_t k = 768, n = 700;
      const Stored w = store(f, n, k, 3);
      const std::vector<float> x = random_vector(m * k, 4);
      const std::vector<float> one = run({x.data(), m, k}, w.view, 1);
      for (const int threads : {2, 3}) {
        const std::vector<float> many = run({x.data(), m, k}, w.view, threads);
        ASSERT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0)
            << format_info(f).name << " m " << m << " threads " << threads;
      }
    }
  }
}

// Products of one list share x and write into column ranges of one matrix, as q, k and v do.
TEST(Matmul, ListWritesColumnRanges) {
  const std::int64_t m = 7, k = 64, n1 = 48, n2 = 16;
  const Stored a = store(Format::kF32, n1, k, 5), b = store(Format::kF16, n2, k, 6);
  const std::vector<float> x = random_vector(m * k, 7);
  std::vector<float> y(static_cast<std::size_t>(m * (n1 + n2 + 1)), -7.0f);
  const Matrix all(y.data(), m, n1 + n2 + 1);
  const Product products[] = {{a.view, all.columns(0, n1)}, {b.view, all.columns(n1, n2)}};
  ASSERT_OK(matmul(ConstMatrix(x.data(), m, k), products));
  const std::vector<float> ya = run({x.data(), m, k}, a.view, 1), yb = run({x.data(), m, k}, b.view, 1);
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t c = 0; c < n1; ++c) EXPECT_EQ(all.row(r)[c], ya[static_cast<std::size_t>(r * n1 + c)]);
    for (std::int64_t c = 0; c < n2; ++c)
      EXPECT_EQ(all.row(r)[n1 + c], yb[static_cast<std::size_t>(r * n2 + c)]);
    EXPECT_EQ(all.row(r)[n1 + n2], -7.0f);  // not touched
  }
}

TEST(Matmul, UnalignedMappedRows) {
  const std::int64_t m = 3, k = 33, n = 20;
  const Stored w = store(Format::kF32, n, k, 8);
  std::vector<std::byte> shifted(w.bytes.size() + 1);
  std::copy(w.bytes.begin(), w.bytes.end(), shifted.begin() + 1);
  TensorView view = w.view;
  view.data = shifted.data() + 1;
  const std::vector<float> x = random_vector(m * k, 9);
  EXPECT_EQ(run({x.data(), m, k}, view, 2), run({x.data(), m, k}, w.view, 2));
}

TEST(Matmul, ErrorsNameBothShapes) {
  const Stored w = store(Format::kF32, 8, 32, 10);
  std::vector<float> x(3 * 32), y(3 * 8);
  struct Case {
    ConstMatrix x;
    TensorView w;
    Matrix y;
    std::vector<std::string> parts;
  };
  TensorView integers = w.view;
  integers.format = Format::kI32;
  const Case cases[] = {
      {{x.data(), 3, 31}, w.view, {y.data(), 3, 8}, {"[3, 31]", "[8, 32]"}},
      {{x.data(), 3, 32}, w.view, {y.data(), 2, 8}, {"[3, 32]", "[8, 32]", "[2, 8]"}},
      {{x.data(), 3, 32}, w.view, {y.data(), 3, 7}, {"[3, 7]"}},
      {{x.data(), 3, 32}, integers, {y.data(), 3, 8}, {"i32"}},
  };
  for (const Case& c : cases) {
    const Status s = matmul(c.x, c.w, c.y);
    ASSERT_FALSE(s.ok());
    for (const std::string& part : c.parts) {
      EXPECT_NE(s.error().message.find(part), std::string::npos) << s.error().message;
    }
  }
}

TEST(Matmul, NoRowsIsNothing) {
  const Stored w = store(Format::kF32, 8, 32, 10);
  EXPECT_OK(matmul(ConstMatrix(nullptr, 0, 32), w.view, {nullptr, 0, 8}));
}

std::vector<bf16> random_bf16(std::int64_t n, std::uint64_t seed) {
  std::vector<bf16> out;
  for (const float v : random_vector(n, seed)) out.push_back(to_bf16(v));
  return out;
}

TEST(GemmBf16, AgainstDoubleAndSameBitsForAnyNumberOfThreads) {
  const std::int64_t m = 17, n = 300, k = 200;
  const std::vector<bf16> a = random_bf16(m * k, 11), b = random_bf16(n * k, 12);
  std::vector<float> c(static_cast<std::size_t>(m * n), -1.0f), c1 = c;
  set_thread_count(1);
  const Status first = gemm_bf16(m, n, k, a.data(), b.data(), c1.data());
  if (!first.ok() && first.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << first.error().message;
  ASSERT_OK(first);
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    ASSERT_OK(gemm_bf16(m, n, k, a.data(), b.data(), c.data()));
    EXPECT_EQ(c, c1) << threads;
  }
  set_thread_count(0);
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t j = 0; j < n; ++j) {
      double want = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        want += static_cast<double>(to_f32(a[static_cast<std::size_t>(r * k + i)])) *
                to_f32(b[static_cast<std::size_t>(j * k + i)]);
      }
      ASSERT_NEAR(c[static_cast<std::size_t>(r * n + j)], want, 1e-4);
    }
  }
}

TEST(GemmBf16, EmptySizes) {
  std::vector<float> c(6, 3.0f);
  EXPECT_OK(gemm_bf16(0, 3, 4, nullptr, nullptr, nullptr));
  EXPECT_OK(gemm_bf16(2, 3, 0, nullptr, nullptr, c.data()));
  EXPECT_EQ(c, std::vector<float>(6, 0.0f));
  EXPECT_FALSE(gemm_bf16(-1, 3, 4, nullptr, nullptr, nullptr).ok());
}

}  // namespace
}  // namespace narrow::ops

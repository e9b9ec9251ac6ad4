// Encoders of tq1_0 and tq2_0.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/scalar.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow {
namespace {

constexpr Format kFormats[] = {Format::kTQ1_0, Format::kTQ2_0};
constexpr std::int64_t kBlock = 256;

std::vector<std::byte> encode(Format f, const std::vector<float>& x, const EncodeOptions& options = {}) {
  const auto k = static_cast<std::int64_t>(x.size());
  std::vector<std::byte> out(row_bytes(f, k));
  EXPECT_OK(encode_row(f, x.data(), out.data(), k, options));
  return out;
}

std::vector<float> decode(Format f, const std::vector<std::byte>& stored, std::size_t k) {
  std::vector<float> y(k);
  EXPECT_OK(decode_row(f, stored.data(), y.data(), static_cast<std::int64_t>(k)));
  return y;
}

// 500 blocks of {-a, 0, a} with an a per block that f16 holds.
std::vector<float> ternary_rows() {
  Rng rng(21);
  std::vector<float> x(500 * kBlock);
  for (std::size_t b = 0; b < 500; ++b) {
    const float a = round_to_f16(std::exp(2 * rng.normal()));
    for (std::size_t j = 0; j < kBlock; ++j)
      x[kBlock * b + j] = a * (static_cast<float>(rng.next_u64() % 3) - 1);
  }
  return x;
}

TEST(Ternary, ExactBlocksAreExactAndEqualGgufsBytes) {
  const std::vector<float> x = ternary_rows();
  for (const Format f : kFormats) {
    for (const bool search : {false, true}) {
      EXPECT_EQ(decode(f, encode(f, x, {nullptr, search}), x.size()), x) << format_info(f).name << search;
    }
  }
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  testing::write_file(dir / "x.f32", {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float)});
  testing::run_python(R"py(
import sys, numpy as np, gguf
from gguf.quants import quantize
x = np.fromfile(sys.argv[1] + "/x.f32", dtype=np.float32).reshape(-1, 256)
for name in ("tq1_0", "tq2_0"):
    quantize(x, gguf.GGMLQuantizationType[name.upper()]).tofile(sys.argv[1] + "/" + name)
)py",
                      {dir.path().string()});
  for (const Format f : kFormats) {
    const std::string want = testing::read_file(dir / std::string(format_info(f).name));
    const std::vector<std::byte> got = encode(f, x);
    ASSERT_EQ(want.size(), got.size());
    EXPECT_EQ(std::memcmp(want.data(), got.data(), got.size()), 0) << format_info(f).name;
  }
}

double error(const float* x, const float* y, const float* w = nullptr) {
  double sum = 0;
  for (int i = 0; i < kBlock; ++i) {
    sum +=
        (w != nullptr ? w[i] : 1.0) * (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  }
  return sum;
}

// No scale of a dense scan does better; with importances, the weighted error falls.
TEST(Ternary, ScaleIsTheLeastSquaresOptimum) {
  Rng rng(22);
  double with = 0, without = 0;
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> x(kBlock), importance(kBlock);
    for (float& v : x) v = rng.normal();
    for (float& v : importance) v = std::exp(rng.normal());
    for (const Format f : kFormats) {
      const double mine = error(x.data(), decode(f, encode(f, x), x.size()).data());
      double best = mine;
      std::vector<float> y(kBlock);
      for (float d = 0.05f; d < 4; d *= 1.001f) {
        for (std::size_t i = 0; i < x.size(); ++i)
          y[i] = std::fabs(x[i]) < d / 2 ? 0 : std::copysign(d, x[i]);
        best = std::min(best, error(x.data(), y.data()));
      }
      EXPECT_LE(mine, best * (1 + 1e-5)) << format_info(f).name << " trial " << trial;
      const EncodeOptions weighted{importance.data(), true};
      with += error(x.data(), decode(f, encode(f, x, weighted), x.size()).data(), importance.data());
      without += error(x.data(), decode(f, encode(f, x), x.size()).data(), importance.data());
    }
  }
  EXPECT_LT(with, 0.99 * without);
}

TEST(Ternary, BothFormatsStoreTheSameValues) {
  Rng rng(23);
  std::vector<float> x(8 * kBlock);
  for (float& v : x) v = 0.02f * rng.normal();
  EXPECT_EQ(decode(Format::kTQ1_0, encode(Format::kTQ1_0, x), x.size()),
            decode(Format::kTQ2_0, encode(Format::kTQ2_0, x), x.size()));
}

TEST(Ternary, PlainScaleIsAbsmax) {
  Rng rng(24);
  std::vector<float> x(kBlock);
  for (float& v : x) v = rng.uniform(-1, 1);
  x[17] = -1.5f;
  const std::vector<float> y = decode(Format::kTQ2_0, encode(Format::kTQ2_0, x, {nullptr, false}), x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(y[i], std::fabs(x[i]) < 0.75f ? 0.0f : std::copysign(1.5f, x[i])) << x[i];
  }
}

TEST(Ternary, ZeroTinyAndHugeRowsStayFinite) {
  for (const Format f : kFormats) {
    for (const bool search : {false, true}) {
      for (const float c : {0.0f, 1e-45f, 1e-30f, 3e38f, -3e38f}) {
        const std::vector<float> x(2 * kBlock, c);
        for (const float v : decode(f, encode(f, x, {nullptr, search}), x.size())) {
          ASSERT_TRUE(std::isfinite(v)) << c;
          if (std::fabs(c) < 1e-8f) {
            ASSERT_EQ(v, 0.0f) << c;
          } else {
            ASSERT_EQ(v, std::copysign(65504.0f, c));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace narrow

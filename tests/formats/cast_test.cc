#include "formats/cast.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <vector>

#include "base/rng.h"
#include "testing/testing.h"

namespace narrow {
namespace {

// Random magnitudes over the whole range of a double, edge cases of each target, and the special values.
std::vector<double> samples() {
  Rng rng(11);
  std::vector<double> x;
  for (int i = 0; i < 20000; ++i) {
    const int exponent = i % 2 == 0 ? static_cast<int>(rng.next_u64() % 340) - 170  // around f32 and bf16
                                    : static_cast<int>(rng.next_u64() % 48) - 28;   // around f16
    x.push_back(std::ldexp(2 * rng.next_double() - 1, exponent));
  }
  for (const double edge : {65504.0, 65519.0, 65520.0, 0x1p-24, 0x1p-25, 0x1.002p-25, 0x1p-14, 0x1.fffffep127,
                            0x1.fffffefp127, 0x1.ffffffp127, 0x1.fep127, 0x1.ff8p127, 0x1p-149, 0x1p-150,
                            0x1.8p-150, 1e300, 1e-300, 0.0, std::numeric_limits<double>::infinity()}) {
    x.push_back(edge);
    x.push_back(-edge);
  }
  x.push_back(std::numeric_limits<double>::quiet_NaN());
  return x;
}

constexpr const char* kPython = R"py(
import sys, numpy as np
from gguf.quants import quantize
import gguf
x = np.fromfile(sys.argv[1] + "/x.f64", dtype=np.float64)
def counts(a, b):
    fin = np.isfinite(a)
    print(a.size, int((fin & np.isinf(b)).sum()), int(((a != 0) & (b == 0)).sum()), int(np.isinf(a).sum()),
          int(np.isnan(a).sum()))
with np.errstate(all="ignore"):
    f = x.astype(np.float32)
    h = f.astype(np.float16)
    b = quantize(f.reshape(1, -1), gguf.GGMLQuantizationType.BF16).ravel().view(np.uint16)
    counts(x, f)
    counts(f, h)
    counts(f, (b.astype(np.uint32) << 16).view(np.float32))
f.tofile(sys.argv[1] + "/x.f32")
h.tofile(sys.argv[1] + "/x.f16")
b.tofile(sys.argv[1] + "/x.bf16")
)py";

template <class T>
std::vector<T> read_array(const std::filesystem::path& p) {
  const std::string bytes = testing::read_file(p);
  std::vector<T> v(bytes.size() / sizeof(T));
  std::memcpy(v.data(), bytes.data(), v.size() * sizeof(T));
  return v;
}

void expect_counts(std::istream& in, const CastCounts& c, const char* name) {
  std::uint64_t values = 0, overflowed = 0, flushed = 0, infinite = 0, nan = 0;
  ASSERT_TRUE(in >> values >> overflowed >> flushed >> infinite >> nan) << name;
  EXPECT_EQ(c.values, values) << name;
  EXPECT_EQ(c.overflowed, overflowed) << name;
  EXPECT_EQ(c.flushed, flushed) << name;
  EXPECT_EQ(c.infinite, infinite) << name;
  EXPECT_EQ(c.nan, nan) << name;
  EXPECT_GT(overflowed, 0u) << name << ": the samples test nothing";
  EXPECT_GT(flushed, 0u) << name << ": the samples test nothing";
}

TEST(Cast, EqualsNumpyAndCounts) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  const std::vector<double> x = samples();
  testing::write_file(dir / "x.f64", {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(double)});
  std::istringstream counts(testing::run_python(kPython, {dir.path().string()}));
  const auto n = static_cast<std::int64_t>(x.size());

  std::vector<float> f(x.size());
  expect_counts(counts, cast_f64_to_f32(x.data(), f.data(), n), "f64 to f32");
  const auto want_f = read_array<float>(dir / "x.f32");
  ASSERT_EQ(want_f.size(), f.size());
  for (std::size_t i = 0; i < f.size(); ++i) {
    if (std::isnan(want_f[i])) {
      EXPECT_TRUE(std::isnan(f[i]));
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(f[i]), std::bit_cast<std::uint32_t>(want_f[i])) << x[i];
    }
  }

  const struct {
    Format to;
    const char* file;
  } kCases[] = {{Format::kF16, "x.f16"}, {Format::kBF16, "x.bf16"}};
  for (const auto& c : kCases) {
    std::vector<std::uint16_t> got(x.size());
    ASSERT_OK_AND_ASSIGN(const CastCounts made,
                         cast_from_f32(c.to, f.data(), reinterpret_cast<std::byte*>(got.data()), n));
    expect_counts(counts, made, c.file);
    const auto want = read_array<std::uint16_t>(dir / c.file);
    ASSERT_EQ(want.size(), got.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!std::isnan(f[i])) {
        EXPECT_EQ(got[i], want[i]) << c.file << " " << f[i];
      }
    }
  }
}

TEST(Cast, CopiesF32AndRefusesTheRest) {
  const float x[4] = {1, -2, INFINITY, NAN};
  float copy[4];
  ASSERT_OK_AND_ASSIGN(CastCounts c, cast_from_f32(Format::kF32, x, reinterpret_cast<std::byte*>(copy), 4));
  EXPECT_EQ(std::memcmp(x, copy, sizeof(x)), 0);
  EXPECT_EQ(c.values, 4u);
  EXPECT_EQ(c.infinite, 1u);
  EXPECT_EQ(c.nan, 1u);
  EXPECT_EQ(c.overflowed + c.flushed, 0u);
  c += c;
  EXPECT_EQ(c.values, 8u);
  EXPECT_EQ(c.nan, 2u);
  const auto refused = cast_from_f32(Format::kQ8_0, x, reinterpret_cast<std::byte*>(copy), 4);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace narrow

#include "formats/affine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "testing/testing.h"

namespace narrow::formats {
namespace {

constexpr std::int64_t kRows = 7, kCols = 100;  // groups of 32: the last one of a row has 4

std::vector<float> random_matrix(std::uint64_t seed, float shift) {
  Rng rng(seed);
  std::vector<float> x(kRows * kCols);
  for (float& v : x) v = rng.normal() + shift;
  x[5] = 6 + shift;  // an outlier for percentiles and searches to clip
  return x;
}

double squared_error(const std::vector<float>& x, const AffineQuantized& q) {
  std::vector<float> y(x.size());
  affine_dequantize(q, y.data());
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  return sum;
}

std::string text(const AffineSpec& s) {
  return fmt::format("{} bits, mapping {}, full range {}, scope {}, range {}", s.bits,
                     static_cast<int>(s.mapping), s.full_range, static_cast<int>(s.scope),
                     static_cast<int>(s.range));
}

// Every combination of the axes.
std::vector<AffineSpec> all_specs() {
  std::vector<AffineSpec> specs;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const auto mapping : {AffineMapping::kSymmetric, AffineMapping::kZeroPoint, AffineMapping::kMin}) {
      for (const auto scope : {AffineScope::kTensor, AffineScope::kRow, AffineScope::kGroup}) {
        for (const auto range :
             {AffineRange::kAbsMax, AffineRange::kPercentile, AffineRange::kLeastSquares}) {
          for (const bool full : {false, true}) {
            if (full && mapping != AffineMapping::kSymmetric) continue;
            specs.push_back({bits, mapping, full, scope, 32, range, 97.5});
          }
        }
      }
    }
  }
  return specs;
}

// absmax, min/max and percentile in numpy, for any mapping and scope; prints scales, offsets, then codes.
constexpr const char* kPython = R"py(
import sys, json, numpy as np
folder, rows, cols = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
x = np.fromfile(folder + "/x.f32", dtype=np.float32).reshape(rows, cols)
for n, s in enumerate(json.load(open(folder + "/specs.json"))):
    if s["scope"] == 0: groups = [x.ravel()]
    elif s["scope"] == 1: groups = list(x)
    else: groups = [r[c:c + s["group"]] for r in x for c in range(0, cols, s["group"])]
    half = 2 ** (s["bits"] - 1)
    lo_code, hi_code = (-half if s["full"] else 1 - half, half - 1) if s["mapping"] == 0 else (0, 2 * half - 1)
    scales, offsets, codes = [], [], []
    for g in groups:
        d = g.astype(np.float64)
        p = s["percentile"] if s["range"] == 1 else 100.0
        if s["mapping"] == 0:
            S, O = np.percentile(np.abs(d), p) / ((hi_code - lo_code) / 2), 0.0
        else:
            lo, hi = np.percentile(d, 100 - p), np.percentile(d, p)
            if s["mapping"] == 1: lo, hi = min(lo, 0.0), max(hi, 0.0)
            S = (hi - lo) / hi_code
            O = np.clip(np.rint(-lo / np.float32(S)), 0, hi_code) if s["mapping"] == 1 else lo
        S, O = np.float32(S), np.float32(O)
        q = (g - O) / S if s["mapping"] == 2 else g / S + O
        codes.append(np.clip(np.rint(q), lo_code, hi_code))
        scales.append(S)
        offsets.append(O)
    np.array(scales, np.float32).tofile(f"{folder}/{n}.scales")
    np.array(offsets, np.float32).tofile(f"{folder}/{n}.offsets")
    np.concatenate(codes).astype(np.int32).tofile(f"{folder}/{n}.codes")
)py";

template <class T>
std::vector<T> read_array(const std::filesystem::path& p) {
  const std::string bytes = testing::read_file(p);
  std::vector<T> v(bytes.size() / sizeof(T));
  std::memcpy(v.data(), bytes.data(), v.size() * sizeof(T));
  return v;
}

TEST(Affine, EqualsNumpy) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  const std::vector<float> x = random_matrix(3, 0.25f);
  testing::write_file(dir / "x.f32", {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float)});
  std::vector<AffineSpec> specs;
  std::string json = "[";
  for (const AffineSpec& s : all_specs()) {
    if (s.range == AffineRange::kLeastSquares) continue;
    json += fmt::format(
        "{}{{\"bits\":{},\"mapping\":{},\"full\":{},\"scope\":{},\"group\":{},\"range\":{},\"percentile\":{}}"
        "}",
        specs.empty() ? "" : ",", s.bits, static_cast<int>(s.mapping), s.full_range,
        static_cast<int>(s.scope), s.group, static_cast<int>(s.range), s.percentile);
    specs.push_back(s);
  }
  testing::write_file(dir / "specs.json", json + "]");
  testing::run_python(kPython, {dir.path().string(), std::to_string(kRows), std::to_string(kCols)});

  for (std::size_t n = 0; n < specs.size(); ++n) {
    SCOPED_TRACE(text(specs[n]));
    ASSERT_OK_AND_ASSIGN(const AffineQuantized q, affine_quantize(x.data(), kRows, kCols, specs[n]));
    const auto scales = read_array<float>(dir / (std::to_string(n) + ".scales"));
    const auto offsets = read_array<float>(dir / (std::to_string(n) + ".offsets"));
    const auto codes = read_array<std::int32_t>(dir / (std::to_string(n) + ".codes"));
    ASSERT_EQ(q.scales.size(), scales.size());
    for (std::size_t g = 0; g < scales.size(); ++g) {
      EXPECT_NEAR(q.scales[g], scales[g], 1e-6f * scales[g]);
      if (specs[n].mapping == AffineMapping::kZeroPoint) {
        EXPECT_EQ(static_cast<float>(q.zero_points[g]), offsets[g]);
      }
      if (specs[n].mapping == AffineMapping::kMin) {
        EXPECT_NEAR(q.mins[g], offsets[g], 1e-6f);
      }
    }
    ASSERT_EQ(q.codes.size(), codes.size());
    // Percentiles may differ in the last bit, and with them the rare code at a rounding boundary.
    int different = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const int difference = std::abs(q.code(static_cast<std::int64_t>(i)) - codes[i]);
      ASSERT_LE(difference, 1) << i;
      different += difference;
    }
    EXPECT_LE(different, specs[n].range == AffineRange::kPercentile ? 2 : 0);
  }
}

TEST(Affine, CodesStayInRangeAndErrorsWithinHalfAStep) {
  for (const float shift : {0.0f, 3.0f, -20.0f}) {
    const std::vector<float> x = random_matrix(4, shift);
    for (const AffineSpec& spec : all_specs()) {
      SCOPED_TRACE(text(spec));
      ASSERT_OK_AND_ASSIGN(const AffineQuantized q, affine_quantize(x.data(), kRows, kCols, spec));
      const CodeRange range = affine_code_range(spec);
      EXPECT_EQ(range.high - range.low + 1,
                (1 << spec.bits) - (spec.mapping == AffineMapping::kSymmetric && !spec.full_range ? 1 : 0));
      std::vector<float> y(x.size());
      affine_dequantize(q, y.data());
      for (std::int64_t i = 0; i < kRows * kCols; ++i) {
        const std::size_t at = static_cast<std::size_t>(i);
        ASSERT_GE(q.code(i), range.low);
        ASSERT_LE(q.code(i), range.high);
        // Inside the range each value takes the nearest code; outside, the last one on its side.
        const float s = q.scales[q.group_of(i / kCols, i % kCols)];
        ASSERT_GT(s, 0.0f);
        const bool clipped = q.code(i) == range.low || q.code(i) == range.high;
        const bool covers_all = spec.range == AffineRange::kAbsMax;
        if (!clipped || covers_all) {
          ASSERT_LE(std::fabs(x[at] - y[at]), 0.5001f * s + 1e-5f * std::fabs(x[at])) << i;
        }
      }
    }
  }
}

TEST(Affine, SearchIsNeverWorseAndHelpsAtFewBits) {
  for (const float shift : {0.0f, 2.0f}) {
    const std::vector<float> x = random_matrix(5, shift);
    for (AffineSpec spec : all_specs()) {
      if (spec.range != AffineRange::kLeastSquares) continue;
      SCOPED_TRACE(text(spec));
      ASSERT_OK_AND_ASSIGN(const AffineQuantized searched, affine_quantize(x.data(), kRows, kCols, spec));
      spec.range = AffineRange::kAbsMax;
      ASSERT_OK_AND_ASSIGN(const AffineQuantized plain, affine_quantize(x.data(), kRows, kCols, spec));
      const double better = squared_error(x, searched), worse = squared_error(x, plain);
      EXPECT_LE(better, worse * (1 + 1e-6));
      if (spec.bits <= 4 && spec.scope == AffineScope::kTensor) {
        EXPECT_LT(better, 0.9 * worse);
      }
    }
  }
}

// A dense scan over symmetric scales finds nothing clearly better than the search.
TEST(Affine, SearchIsCloseToTheOptimum) {
  Rng rng(6);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> x(64);
    for (float& v : x) v = rng.normal();
    for (const int bits : {2, 3, 4}) {
      const AffineSpec spec{bits, AffineMapping::kSymmetric, false, AffineScope::kTensor,
                            0,    AffineRange::kLeastSquares};
      ASSERT_OK_AND_ASSIGN(const AffineQuantized q, affine_quantize(x.data(), 1, 64, spec));
      double best = std::numeric_limits<double>::infinity();
      AffineQuantized scan = q;
      const CodeRange range = affine_code_range(spec);
      for (float s = 0.01f; s < 4; s *= 1.002f) {
        scan.scales[0] = s;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const float code = std::clamp(std::nearbyint(x[i] / s), static_cast<float>(range.low),
                                        static_cast<float>(range.high));
          scan.codes[i] = static_cast<std::uint8_t>(static_cast<int>(code));
        }
        best = std::min(best, squared_error(x, scan));
      }
      EXPECT_LE(squared_error(x, q), 1.03 * best) << bits << " bits, trial " << trial;
    }
  }
}

TEST(Affine, ConstantsAndZerosAreExact) {
  for (const float c : {0.0f, 1.0f, -1.0f, 0.1f, -0.1f, 3e38f, -3e38f, 1e-45f}) {
    const std::vector<float> x(kRows * kCols, c);
    for (const AffineSpec& spec : all_specs()) {
      ASSERT_OK_AND_ASSIGN(const AffineQuantized q, affine_quantize(x.data(), kRows, kCols, spec));
      EXPECT_EQ(squared_error(x, q), 0.0) << c << ", " << text(spec);
    }
  }
}

TEST(Affine, ZeroStaysExactlyZeroWhereTheMappingPromisesIt) {
  std::vector<float> x = random_matrix(8, 1.0f);
  for (std::size_t i = 0; i < x.size(); i += 3) x[i] = 0;
  for (const AffineSpec& spec : all_specs()) {
    if (spec.mapping == AffineMapping::kMin) continue;
    ASSERT_OK_AND_ASSIGN(const AffineQuantized q, affine_quantize(x.data(), kRows, kCols, spec));
    std::vector<float> y(x.size());
    affine_dequantize(q, y.data());
    for (std::size_t i = 0; i < x.size(); i += 3) ASSERT_EQ(y[i], 0.0f) << text(spec);
  }
}

TEST(Affine, ExtremeMagnitudesStayFinite) {
  const std::vector<float> x = {2e38f, -2e38f, 1e-45f, 0.0f, 1e-30f, -1e-45f, 1e38f, 1.0f};
  for (const AffineSpec& spec : all_specs()) {
    for (const std::int64_t cols : {8, 2}) {  // all together; and rows of huge or of tiny values
      ASSERT_OK_AND_ASSIGN(const AffineQuantized q, affine_quantize(x.data(), 8 / cols, cols, spec));
      std::vector<float> y(x.size());
      affine_dequantize(q, y.data());
      for (const float v : y) ASSERT_TRUE(std::isfinite(v)) << text(spec);
    }
  }
}

TEST(Affine, RefusesBadInputWithThePosition) {
  std::vector<float> x = random_matrix(9, 0);
  const auto fails = [&](const AffineSpec& spec, std::int64_t rows, ErrorCode code, const std::string& part) {
    const auto r = affine_quantize(x.data(), rows, kCols, spec);
    ASSERT_FALSE(r.ok()) << part;
    EXPECT_EQ(r.error().code, code);
    EXPECT_NE(r.error().message.find(part), std::string::npos) << r.error().message;
  };
  AffineSpec spec;
  spec.bits = 9;
  fails(spec, kRows, ErrorCode::kInvalidArgument, "9 bits");
  spec.bits = 1;
  fails(spec, kRows, ErrorCode::kInvalidArgument, "1 bits");
  spec = {};
  spec.scope = AffineScope::kGroup;
  fails(spec, kRows, ErrorCode::kInvalidArgument, "group of 0");
  spec = {};
  spec.range = AffineRange::kPercentile;
  spec.percentile = 100.5;
  fails(spec, kRows, ErrorCode::kInvalidArgument, "percentile 100.5");
  fails({}, -1, ErrorCode::kInvalidArgument, "-1 rows");
  x[2 * kCols + 17] = std::numeric_limits<float>::quiet_NaN();
  fails({}, kRows, ErrorCode::kNumeric, "[2, 17] is nan");
  x[2 * kCols + 17] = -std::numeric_limits<float>::infinity();
  fails({}, kRows, ErrorCode::kNumeric, "[2, 17] is -inf");
  ASSERT_OK_AND_ASSIGN(const AffineQuantized empty, affine_quantize(nullptr, 0, kCols, {}));
  EXPECT_TRUE(empty.codes.empty());
}

TEST(PackCodes, RoundTripAndLayout) {
  Rng rng(10);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::size_t n :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{101}}) {
      for (const bool is_signed : {false, true}) {
        std::vector<std::uint8_t> codes(n);
        for (auto& c : codes) {
          const int span = 1 << bits;
          const int v = static_cast<int>(rng.next_u64() % static_cast<std::uint64_t>(span)) -
                        (is_signed ? span / 2 : 0);
          c = static_cast<std::uint8_t>(v);
        }
        const auto packed = pack_codes(codes, bits);
        EXPECT_EQ(packed.size(), (n * static_cast<std::size_t>(bits) + 7) / 8);
        ASSERT_OK_AND_ASSIGN(const auto back,
                             unpack_codes(packed, bits, static_cast<std::int64_t>(n), is_signed));
        EXPECT_EQ(back, codes) << bits << " bits, " << n << " codes, signed " << is_signed;
      }
    }
  }
  // 3-bit codes 1, 2, 3, 4 are the bits 100 010 110 001 from the lowest: 0xd1, 0x08.
  const std::uint8_t codes[] = {1, 2, 3, 4};
  const std::vector<std::byte> want = {std::byte{0xd1}, std::byte{0x08}};
  EXPECT_EQ(pack_codes(codes, 3), want);
}

TEST(PackCodes, RefusesShortBuffers) {
  const std::vector<std::byte> three(3);
  EXPECT_OK(unpack_codes(three, 3, 8, false));
  for (const std::int64_t n : {std::int64_t{9}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    const auto r = unpack_codes(three, 3, n, false);
    ASSERT_FALSE(r.ok()) << n;
    EXPECT_EQ(r.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_FALSE(unpack_codes(three, 9, 1, false).ok());
}

}  // namespace
}  // namespace narrow::formats

// Encoders of iq4_nl, iq4_xs and mxfp4: search against textbook scales, brute force, and extreme input.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/scalar.h"
#include "formats/codebook_fit.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow {
namespace {

constexpr Format kFormats[] = {Format::kIQ4_NL, Format::kIQ4_XS, Format::kMXFP4};

std::vector<float> normal_row(std::uint64_t seed, std::int64_t k, float sigma = 1) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(k));
  for (float& v : x) v = sigma * rng.normal();
  return x;
}

std::vector<std::byte> encode(Format f, const std::vector<float>& x, const EncodeOptions& options = {}) {
  const auto k = static_cast<std::int64_t>(x.size());
  std::vector<std::byte> out(row_bytes(f, k));
  EXPECT_OK(encode_row(f, x.data(), out.data(), k, options));
  return out;
}

std::vector<float> round_trip(Format f, const std::vector<float>& x, const EncodeOptions& options = {}) {
  const std::vector<std::byte> stored = encode(f, x, options);
  std::vector<float> y(x.size());
  EXPECT_OK(decode_row(f, stored.data(), y.data(), static_cast<std::int64_t>(x.size())));
  return y;
}

double error(const std::vector<float>& x, const std::vector<float>& y, const float* w = nullptr) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sum +=
        (w != nullptr ? w[i] : 1.0) * (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  }
  return sum;
}

// What the search of f minimises for x without importances: WeightRule::kMagnitude, and plain for mxfp4.
std::vector<float> search_weights(Format f, const std::vector<float>& x) {
  std::vector<float> w(x.size(), 1.0f);
  if (f == Format::kMXFP4) return w;
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  const auto mean_square = static_cast<float>(sum / static_cast<double>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) w[i] = std::sqrt(mean_square + x[i] * x[i]);
  return w;
}

TEST(Codebook, SearchBeatsPlainScalesInEveryBlock) {
  for (const Format f : kFormats) {
    const FormatInfo& info = format_info(f);
    double searched = 0, plain = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      const std::vector<float> x = normal_row(seed, info.block_size, 0.05f);
      const std::vector<float> w = search_weights(f, x);
      const double s = error(x, round_trip(f, x), w.data());
      const double p = error(x, round_trip(f, x, {nullptr, false}), w.data());
      // The super-block of iq4_xs is searched as a whole; a hair may be lost to the f16 scale.
      EXPECT_LE(s, 1.001 * p) << info.name << " seed " << seed;
      searched += s;
      plain += p;
    }
    EXPECT_LT(searched, 0.97 * plain) << info.name;
  }
}

// Every f16 scale of either sign near the useful ones, with the nearest level each.
TEST(Codebook, IQ4_NLIsCloseToTheBestScale) {
  double found = 0, best = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::vector<float> x = normal_row(seed, 32);
    const std::vector<float> w = search_weights(Format::kIQ4_NL, x);
    double least = std::numeric_limits<double>::infinity();
    for (std::uint16_t bits = to_f16(0.004f).bits; bits <= to_f16(0.06f).bits; ++bits) {
      for (const float sign : {1.0f, -1.0f}) {
        const float d = sign * to_f32(f16{bits});
        double sum = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
          float nearest = std::numeric_limits<float>::infinity();
          for (const int level : formats::kNonLinearLevels) {
            nearest = std::min(nearest, std::fabs(x[i] - d * static_cast<float>(level)));
          }
          sum += static_cast<double>(w[i]) * nearest * nearest;
        }
        least = std::min(least, sum);
      }
    }
    const double mine = error(x, round_trip(Format::kIQ4_NL, x), w.data());
    EXPECT_LE(mine, 1.15 * least) << seed;
    found += mine;
    best += least;
  }
  EXPECT_LE(found, 1.02 * best);
}

TEST(Codebook, IQ4_XSLosesLittleToItsSharedScale) {
  double xs = 0, nl = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> x = normal_row(seed, 256);
    xs += error(x, round_trip(Format::kIQ4_XS, x));
    nl += error(x, round_trip(Format::kIQ4_NL, x));
  }
  EXPECT_LE(xs, 1.03 * nl);
}

TEST(Codebook, Mxfp4TakesTheBestExponent) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const std::vector<float> x = normal_row(seed, 32, 0.3f);
    std::vector<std::byte> stored = encode(Format::kMXFP4, x);
    const double mine = error(x, round_trip(Format::kMXFP4, x));
    for (int e = 110; e < 132; ++e) {
      // Codes of the textbook encoder for a block whose peak calls for exponent e, put on x by scaling.
      std::vector<float> y(32);
      const float unit = std::ldexp(1.0f, e - 128);
      for (std::size_t j = 0; j < 32; ++j) {
        float nearest = std::numeric_limits<float>::infinity();
        for (const float level : {0.f, 1.f, 2.f, 3.f, 4.f, 6.f, 8.f, 12.f}) {
          const float v = std::copysign(level * unit, x[j]);
          if (std::fabs(v - x[j]) < nearest) {
            nearest = std::fabs(v - x[j]);
            y[j] = v;
          }
        }
      }
      EXPECT_LE(mine, error(x, y) * (1 + 1e-5)) << "seed " << seed << ", exponent " << e;
    }
  }
}

TEST(Codebook, PlainMxfp4EqualsGguf) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  const std::vector<float> x = normal_row(1, 32 * 500);
  testing::write_file(dir / "x.f32", {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float)});
  testing::run_python(R"py(
import sys, numpy as np, gguf
from gguf.quants import quantize
x = np.fromfile(sys.argv[1] + "/x.f32", dtype=np.float32).reshape(-1, 32)
quantize(x, gguf.GGMLQuantizationType.MXFP4).tofile(sys.argv[1] + "/q")
)py",
                      {dir.path().string()});
  const std::string want = testing::read_file(dir / "q");
  const std::vector<std::byte> got = encode(Format::kMXFP4, x, {nullptr, false});
  ASSERT_EQ(want.size(), got.size());
  EXPECT_EQ(std::memcmp(want.data(), got.data(), got.size()), 0);
}

TEST(Codebook, ImportanceMovesTheErrorAway) {
  for (const Format f : kFormats) {
    const FormatInfo& info = format_info(f);
    double with = 0, without = 0;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      const std::vector<float> x = normal_row(seed, 1024);
      Rng rng(seed + 1000);
      std::vector<float> importance(x.size());
      for (float& v : importance) v = std::exp(3 * rng.normal());
      with += error(x, round_trip(f, x, {importance.data(), true}), importance.data());
      without += error(x, round_trip(f, x), importance.data());
    }
    EXPECT_LT(with, 0.95 * without) << info.name;
    // Importances that say nothing change nothing.
    const std::vector<float> x = normal_row(7, 512), zeros(512, 0.0f);
    EXPECT_EQ(encode(f, x, {zeros.data(), true}), encode(f, x)) << info.name;
  }
}

TEST(Codebook, ZeroConstantTinyAndHugeRows) {
  for (const Format f : kFormats) {
    const FormatInfo& info = format_info(f);
    for (const bool search : {false, true}) {
      for (const float c : {0.0f, 1e-45f, 1e-30f, 1e-6f, 0.37f, -0.37f, 1e4f, -1e6f, 1e15f, 3e38f, -3e38f}) {
        std::vector<float> x(512, c);
        x[100] = 0;  // and one block with a zero among constants
        const std::vector<float> y = round_trip(f, x, {nullptr, search});
        for (std::size_t i = 0; i < y.size(); ++i) {
          ASSERT_TRUE(std::isfinite(y[i])) << info.name << " " << c << " element " << i;
          if (c == 0) {
            ASSERT_EQ(y[i], 0.0f) << info.name << " element " << i;
          }
        }
        // Within what the scale can express, a constant survives to 4-bit accuracy.
        if (std::fabs(c) >= 1e-2f && std::fabs(c) <= 1e6f) {
          EXPECT_NEAR(y[300], c, (f == Format::kMXFP4 ? 0.25f : 0.01f) * std::fabs(c)) << info.name;
        }
      }
    }
  }
}

// Blocks know nothing of each other: a row is its pieces.
TEST(Codebook, RowsAreTheirBlocks) {
  for (const Format f : kFormats) {
    const std::vector<float> x = normal_row(3, 1024);
    const std::vector<std::byte> whole = encode(f, x);
    for (std::size_t at = 0; at < x.size(); at += 256) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(at);
      const std::vector<std::byte> piece = encode(f, std::vector<float>(begin, begin + 256));
      EXPECT_EQ(
          std::memcmp(piece.data(), whole.data() + row_bytes(f, static_cast<std::int64_t>(at)), piece.size()),
          0)
          << format_info(f).name << " at " << at;
    }
  }
}

}  // namespace
}  // namespace narrow

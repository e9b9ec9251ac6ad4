#include "base/scalar.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "testing/testing.h"

namespace narrow {
namespace {

#if defined(__aarch64__)
using CompilersHalf = __fp16;  // gcc 12 has no _Float16 in C++ here
#else
using CompilersHalf = _Float16;
#endif

// The compiler's own half is the oracle for every half and for every rounding between two halves.
TEST(Scalar, EveryHalfDecodesAsTheCompilerDoes) {
  for (std::uint32_t b = 0; b < 65536; ++b) {
    const f16 h{static_cast<std::uint16_t>(b)};
    CompilersHalf c;
    std::memcpy(&c, &h, 2);
    const float mine = to_f32(h), theirs = static_cast<float>(c);
    if (std::isnan(theirs)) {
      EXPECT_TRUE(std::isnan(mine)) << b;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(mine), std::bit_cast<std::uint32_t>(theirs)) << b;
    }
  }
}

TEST(Scalar, RoundingToHalfMatchesTheCompiler) {
  for (std::uint64_t x = 0; x < (1ull << 32); x += 4099) {
    const float f = std::bit_cast<float>(static_cast<std::uint32_t>(x));
    const CompilersHalf c = static_cast<CompilersHalf>(f);
    std::uint16_t theirs;
    std::memcpy(&theirs, &c, 2);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_f32(to_f16(f))));
    } else {
      ASSERT_EQ(to_f16(f).bits, theirs) << f;
    }
  }
}

TEST(Scalar, Bf16RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // tie to even
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Scalar, EightBitFloats) {
  EXPECT_EQ(f8_e4m3_to_f32(0x7e), 448.0f);
  EXPECT_TRUE(std::isnan(f8_e4m3_to_f32(0x7f)));
  EXPECT_EQ(f8_e4m3_to_f32(0x01), std::ldexp(1.0f, -9));
  EXPECT_EQ(f8_e5m2_to_f32(0x7b), 57344.0f);
  EXPECT_EQ(e8m0_to_f32(127), 1.0f);
  EXPECT_EQ(e8m0_to_f32(0), std::ldexp(1.0f, -127));
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
}

}  // namespace
}  // namespace narrow

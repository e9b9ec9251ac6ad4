#include "formats/floats.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "base/scalar.h"

namespace narrow::formats {
namespace {

// Every 16-bit word, in runs that also exercise the scalar tail (lengths that are no multiple of 8).
template <class Word>
void expect_decodes_as_scalar(void (*decode)(const std::byte*, float*, std::int64_t)) {
  std::vector<std::uint16_t> words(65536);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
  constexpr std::size_t kRun = 31;
  for (std::size_t at = 0; at < words.size(); at += kRun) {
    const std::size_t n = std::min(kRun, words.size() - at);
    std::vector<float> got(n);
    decode(reinterpret_cast<const std::byte*>(words.data() + at), got.data(), static_cast<std::int64_t>(n));
    for (std::size_t i = 0; i < n; ++i) {
      const float want = to_f32(Word{words[at + i]});
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(got[i])) << "word " << at + i;
      } else {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want))
            << "word " << at + i;
      }
    }
  }
}

TEST(Floats, VectorDecodeEqualsScalarForAllWords) {
  expect_decodes_as_scalar<f16>(decode_f16);
  expect_decodes_as_scalar<bf16>(decode_bf16);
}

TEST(Floats, VectorEncodeEqualsScalar) {
  Rng rng(7);
  std::vector<float> x(4099);
  for (float& v : x) {
    do {
      v = std::bit_cast<float>(static_cast<std::uint32_t>(rng.next_u64()));
    } while (std::isnan(v));
    // Half of them where f16 has its normal and subnormal numbers.
    if (rng.next_u64() & 1u) v = std::ldexp(rng.uniform(-1, 1), static_cast<int>(rng.next_u64() % 44) - 27);
  }
  std::vector<std::uint16_t> halves(x.size()), brains(x.size());
  const auto n = static_cast<std::int64_t>(x.size());
  encode_f16(x.data(), reinterpret_cast<std::byte*>(halves.data()), n, {});
  encode_bf16(x.data(), reinterpret_cast<std::byte*>(brains.data()), n, {});
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(halves[i], to_f16(x[i]).bits) << x[i];
    ASSERT_EQ(brains[i], to_bf16(x[i]).bits) << x[i];
  }
}

TEST(Floats, F8AndF64DecodeKnownValues) {
  const std::uint8_t e4m3[] = {0x00, 0x80, 0x01, 0x08, 0x38, 0x7e, 0xfe, 0x7f};
  const float e4m3_values[] = {0.0f, -0.0f, 0x1p-9f, 0x1p-6f, 1.0f, 448.0f, -448.0f, NAN};
  const std::uint8_t e5m2[] = {0x00, 0x01, 0x04, 0x3c, 0x7b, 0x7c, 0xfc, 0x7d};
  const float e5m2_values[] = {0.0f, 0x1p-16f, 0x1p-14f, 1.0f, 57344.0f, INFINITY, -INFINITY, NAN};
  float got[8];
  const auto expect = [&](const float(&want)[8], const char* name) {
    for (int i = 0; i < 8; ++i) {
      if (std::isnan(want[i])) {
        EXPECT_TRUE(std::isnan(got[i])) << name << " " << i;
      } else {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want[i]))
            << name << " " << i;
      }
    }
  };
  decode_f8_e4m3(reinterpret_cast<const std::byte*>(e4m3), got, 8);
  expect(e4m3_values, "e4m3");
  decode_f8_e5m2(reinterpret_cast<const std::byte*>(e5m2), got, 8);
  expect(e5m2_values, "e5m2");

  const float x[3] = {1.5f, -3e38f, 1e-45f};
  std::byte stored[24];
  encode_f64(x, stored, 3, {});
  double middle;
  std::memcpy(&middle, stored + 8, sizeof(middle));
  EXPECT_EQ(middle, static_cast<double>(-3e38f));
  float back[3];
  decode_f64(stored, back, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(back[i], x[i]);
}

}  // namespace
}  // namespace narrow::formats

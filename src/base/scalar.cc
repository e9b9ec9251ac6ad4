#include "base/scalar.h"

#include <cmath>
#include <limits>

namespace narrow {

float to_f32(f16 h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t exp = (h.bits >> 10) & 0x1fu;
  std::uint32_t man = h.bits & 0x3ffu;
  if (exp == 31) return std::bit_cast<float>(sign | 0x7f800000u | (man << 13));
  if (exp != 0) return std::bit_cast<float>(sign | ((exp + 112u) << 23) | (man << 13));
  if (man == 0) return std::bit_cast<float>(sign);
  // Subnormal half: shift the leading one up to the implicit place.
  const int shift = std::countl_zero(man) - 21;
  man = (man << shift) & 0x3ffu;
  return std::bit_cast<float>(sign | (static_cast<std::uint32_t>(113 - shift) << 23) | (man << 13));
}

f16 to_f16(float f) {
  const std::uint32_t x = std::bit_cast<std::uint32_t>(f);
  const std::uint16_t sign = static_cast<std::uint16_t>((x >> 16) & 0x8000u);
  const std::uint32_t a = x & 0x7fffffffu;
  if (a > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu))};
  if (a >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65520 rounds to inf
  if (a < 0x38800000u) {                 // below the smallest normal half, 2^-14
    if (a < 0x33000000u) return {sign};  // below half of the smallest subnormal
    const std::uint32_t e = a >> 23;
    const std::uint32_t m = (a & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = 126u - e;  // 14..24
    const std::uint32_t half = 1u << (shift - 1);
    std::uint32_t r = m >> shift;
    const std::uint32_t rest = m & ((1u << shift) - 1u);
    if (rest > half || (rest == half && (r & 1u))) ++r;
    return {static_cast<std::uint16_t>(sign | r)};
  }
  std::uint32_t r = a - 0x38000000u;  // rebias the exponent by 112
  r += 0xfffu + ((r >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | (r >> 13))};
}

bf16 to_bf16(float f) {
  const std::uint32_t x = std::bit_cast<std::uint32_t>(f);
  if ((x & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((x >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((x + 0x7fffu + ((x >> 16) & 1u)) >> 16)};
}

float f8_e4m3_to_f32(std::uint8_t b) {
  const int exp = (b >> 3) & 15;
  const int man = b & 7;
  if (exp == 15 && man == 7) return std::numeric_limits<float>::quiet_NaN();
  const float v =
      exp == 0 ? std::ldexp(static_cast<float>(man), -9) : std::ldexp(static_cast<float>(8 + man), exp - 10);
  return (b & 0x80) ? -v : v;
}

float f8_e5m2_to_f32(std::uint8_t b) { return to_f32(f16{static_cast<std::uint16_t>(b << 8)}); }

float e8m0_to_f32(std::uint8_t e) {
  if (e == 0xff) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0f, static_cast<int>(e) - 127);
}

}  // namespace narrow

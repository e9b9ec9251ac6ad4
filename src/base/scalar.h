// Scalar storage types as raw bits, with round-to-nearest-even conversions.
// Sources: IEEE 754-2019 (binary16), bfloat16 (Intel BF16 whitepaper), OCP 8-bit floating point
// specification 1.0 (E4M3, E5M2), OCP microscaling formats 1.0 (E8M0).
#pragma once

#include <bit>
#include <cstdint>

namespace narrow {

struct f16 {
  std::uint16_t bits = 0;
};
struct bf16 {
  std::uint16_t bits = 0;
};
static_assert(sizeof(f16) == 2 && sizeof(bf16) == 2);

// Exact. NaN payloads keep their upper bits.
float to_f32(f16 h);
inline float to_f32(bf16 h) { return std::bit_cast<float>(static_cast<std::uint32_t>(h.bits) << 16); }

// Round to nearest even; overflow becomes infinity, as IEEE says; NaN stays a quiet NaN.
f16 to_f16(float f);
bf16 to_bf16(float f);

float f8_e4m3_to_f32(std::uint8_t b);  // no infinities; 0x7f and 0xff are NaN
float f8_e5m2_to_f32(std::uint8_t b);
float e8m0_to_f32(std::uint8_t e);  // 2^(e-127); 0xff is NaN

// As f32 -> f16 -> f32, the value that a stored half holds.
inline float round_to_f16(float f) { return to_f32(to_f16(f)); }

}  // namespace narrow

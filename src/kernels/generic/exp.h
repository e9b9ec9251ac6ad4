// e^x as every instruction set computes it, bit for bit. Static: each translation unit keeps its own.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace narrow::kernels::generic {

// e^x to about 1e-7 relative: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r whose coefficients are
// those of Cephes' expf (Moshier 1989). 0 below -87.3, where results would soon be denormal; e^88.3
// above 88.3; NaN for NaN.
static inline float exp_f32(float x) {
  if (std::isnan(x)) return x;
  if (x < -87.3f) return 0.0f;
  x = x > 88.3f ? 88.3f : x;
  const float n = std::nearbyint(x * 1.44269504088896341f);
  float r = std::fma(-n, 0.693359375f, x);
  r = std::fma(-n, -2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  p = std::fma(p, r * r, r + 1.0f);
  const auto biased = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127);
  return p * std::bit_cast<float>(biased << 23);
}

}  // namespace narrow::kernels::generic

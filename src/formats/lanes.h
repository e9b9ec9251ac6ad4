// Eight float lanes in the compilers' portable vector extension (gcc, clang). Loops written with them run as
// vector code without -ffast-math, and their sums have one fixed order on every machine.
#pragma once

#include <cstdint>
#include <cstring>

namespace narrow::formats {

using Lanes = float __attribute__((vector_size(32)));
using IntLanes = std::int32_t __attribute__((vector_size(32)));

inline Lanes load_lanes(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline Lanes splat(float f) { return Lanes{f, f, f, f, f, f, f, f}; }
inline Lanes min_lanes(Lanes a, Lanes b) { return a < b ? a : b; }
inline Lanes max_lanes(Lanes a, Lanes b) { return a > b ? a : b; }

// Round to nearest even for |v| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
inline Lanes round_lanes(Lanes v) {
  const Lanes magic = splat(12582912.0f);
  return (v + magic) - magic;
}

inline float sum_lanes(Lanes v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

}  // namespace narrow::formats

// How each weight format lies in a panel of packed weights (kernels/packed.h). One row per format; packing,
// the kernels of every instruction set and the scalar oracle are derived from it. Constants only: this header
// is safe in files compiled for any instruction set.
//
// A panel holds R rows (R = KernelTable::panel_rows) and has two regions, then zeros up to 64 bytes:
//   codes:  per group of 32 elements of k, `bits` vectors of 4 R bytes;
//   scales: per unit (a block or super-block of the file), 2 R bytes for each half, then the small integers.
//
// A code vector c (0..7) of a group holds elements 4 c .. 4 c + 3 of every row: byte 4 r + i is element
// 4 c + i of row r, so that a four-way dot product leaves one row per 32-bit lane. Codes are cut into planes,
// stored one after the other:
//   8 bits: one vector per code vector;
//   4 bits: vector v has code vector v in its low nibbles and v + 4 in its high ones;
//   2 bits: vector p has code vectors 4 p .. 4 p + 3 at bits 0, 2, 4, 6;
//   1 bit:  one vector with code vector c at bit c.
// 3 bits are a 2-bit plane (low) and a 1-bit plane, 5 bits 4 + 1, 6 bits 4 + 2.
//
// The small integers of a unit, seen as bytes [values, R], N = values * R in all, are cut the same way: 8
// bits as they are; 4 bits: byte b has value b in the low and b + N/2 in the high nibble; 6 bits: the
// nibbles, then bytes with the upper two bits of values b, b + N/4, b + N/2 and b + 3N/4. With minima, the
// first half of the values are scales, the second half minima.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/format.h"

namespace narrow::kernels::packed {

inline constexpr int kGroup = 32;
inline constexpr int kMaxUnit = 256;
inline constexpr int kMaxValues = 32;

enum class Levels : std::uint8_t {
  kNone,       // a code is its own level
  kNonLinear,  // iq4_nl's table
  kE2M1,       // mxfp4's values, doubled so that they are whole
};

// real = S * (level - offset) - M, where level is an unsigned integer.
struct Layout {
  Format format;
  int unit;    // elements per block or super-block of the file
  int bits;    // stored bits per code
  int run;     // elements that share S: 16 or 32
  int offset;  // 128: levels take all 8 bits
  int halves;  // fp16 numbers per unit: d, then dmin or the additive min
  int values;  // small integers per unit
  int value_bits;
  int value_offset;  // taken off the small integers
  bool minima;
  Levels levels;

  constexpr int groups() const { return unit / kGroup; }
  constexpr int runs() const { return kGroup / run; }  // per group
  constexpr bool wide() const { return offset == 128; }
  // mxfp4's single value is the exponent of a power of two.
  constexpr bool exponent() const { return halves == 0; }
  constexpr int max_level() const { return wide() ? 255 : levels == Levels::kE2M1 ? 24 : (1 << bits) - 1; }
  // Per row of a panel.
  constexpr int group_bytes() const { return 4 * bits; }
  constexpr int scale_bytes() const { return 2 * halves + values * value_bits / 8; }
};

// clang-format off
inline constexpr Layout kLayouts[] = {
    // format        unit bits run offset halves values bits offset minima levels
    {Format::kQ4_0,    32, 4, 32,   8, 1,  0, 0,  0, false, Levels::kNone},
    {Format::kQ4_1,    32, 4, 32,   0, 2,  0, 0,  0, true,  Levels::kNone},
    {Format::kQ5_0,    32, 5, 32,  16, 1,  0, 0,  0, false, Levels::kNone},
    {Format::kQ5_1,    32, 5, 32,   0, 2,  0, 0,  0, true,  Levels::kNone},
    {Format::kQ8_0,    32, 8, 32, 128, 1,  0, 0,  0, false, Levels::kNone},
    {Format::kQ2_K,   256, 2, 16,   0, 2, 32, 4,  0, true,  Levels::kNone},
    {Format::kQ3_K,   256, 3, 16,   4, 1, 16, 6, 32, false, Levels::kNone},
    {Format::kQ4_K,   256, 4, 32,   0, 2, 16, 6,  0, true,  Levels::kNone},
    {Format::kQ5_K,   256, 5, 32,   0, 2, 16, 6,  0, true,  Levels::kNone},
    {Format::kQ6_K,   256, 6, 16,  32, 1, 16, 8,  0, false, Levels::kNone},
    {Format::kIQ4_NL,  32, 4, 32, 128, 1,  0, 0,  0, false, Levels::kNonLinear},
    {Format::kIQ4_XS, 256, 4, 32, 128, 1,  8, 6, 32, false, Levels::kNonLinear},
    {Format::kMXFP4,   32, 4, 32,  12, 0,  1, 8,  0, false, Levels::kE2M1},
    // Base 3 does not unpack fast: 2 bits per weight in memory for both.
    {Format::kTQ1_0,  256, 2, 32,   1, 1,  0, 0,  0, false, Levels::kNone},
    {Format::kTQ2_0,  256, 2, 32,   1, 1,  0, 0,  0, false, Levels::kNone},
};
// clang-format on

constexpr Layout layout_of(Format f) {
  for (const Layout& l : kLayouts) {
    if (l.format == f) return l;
  }
  return Layout{};
}

// Signed levels of the two tables; add the offset for unsigned ones.
inline constexpr std::int8_t kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr std::int8_t kE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

constexpr std::size_t panel_bytes(const Layout& l, int lanes, std::int64_t k) {
  const auto row = static_cast<std::size_t>(k / kGroup * l.group_bytes()) +
                   static_cast<std::size_t>(k / l.unit * l.scale_bytes());
  return (row * static_cast<std::size_t>(lanes) + 63) / 64 * 64;
}

}  // namespace narrow::kernels::packed

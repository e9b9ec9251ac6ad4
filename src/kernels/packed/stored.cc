#include "kernels/packed/stored.h"

#include <cstring>

#include "formats/block.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/scales_6bit.h"
#include "formats/tq1_0.h"
#include "formats/tq2_0.h"

namespace narrow::kernels::packed {
namespace {

using namespace formats;  // NOLINT: every block struct is used once

constexpr std::uint8_t u8(int v) { return static_cast<std::uint8_t>(v); }

// 16 bytes whose low nibbles are elements 0..15 and whose high ones are 16..31.
void read_nibbles(const std::uint8_t* qs, std::uint8_t* codes) {
  for (int j = 0; j < 16; ++j) {
    codes[j] = qs[j] & 15;
    codes[j + 16] = u8(qs[j] >> 4);
  }
}

// Bit j of the little-endian word is the fifth bit of element j.
void read_fifth_bits(const std::uint8_t (&qh)[4], std::uint8_t* codes) {
  for (int byte = 0; byte < 4; ++byte) {
    for (int j = 0; j < 8; ++j) codes[8 * byte + j] = u8(codes[8 * byte + j] | (((qh[byte] >> j) & 1) << 4));
  }
}

// Element 128 h + 32 s + j at bits 2 s of byte 32 h + j.
void read_crumbs(const std::uint8_t (&qs)[kSuperBlock / 4], std::uint8_t* codes) {
  for (int s = 0; s < 8; ++s) {
    for (int j = 0; j < 32; ++j) codes[32 * s + j] = (qs[32 * (s / 4) + j] >> (2 * (s % 4))) & 3;
  }
}

// Bit s of byte j is bit `at` of element 32 s + j.
void add_high_bits(const std::uint8_t (&bits)[kSuperBlock / 8], int at, std::uint8_t* codes) {
  for (int s = 0; s < 8; ++s) {
    for (int j = 0; j < 32; ++j) codes[32 * s + j] = u8(codes[32 * s + j] | (((bits[j] >> s) & 1) << at));
  }
}

void read(const BlockQ4_0& b, StoredUnit& u) {
  u.halves[0] = b.d;
  read_nibbles(b.qs, u.codes);
}

void read(const BlockQ4_1& b, StoredUnit& u) {
  u.halves[0] = b.d;
  u.halves[1] = b.m;
  read_nibbles(b.qs, u.codes);
}

void read(const BlockQ5_0& b, StoredUnit& u) {
  u.halves[0] = b.d;
  read_nibbles(b.qs, u.codes);
  read_fifth_bits(b.qh, u.codes);
}

void read(const BlockQ5_1& b, StoredUnit& u) {
  u.halves[0] = b.d;
  u.halves[1] = b.m;
  read_nibbles(b.qs, u.codes);
  read_fifth_bits(b.qh, u.codes);
}

void read(const BlockQ8_0& b, StoredUnit& u) {
  u.halves[0] = b.d;
  for (int j = 0; j < 32; ++j) u.codes[j] = u8(b.qs[j] + 128);
}

void read(const BlockQ2_K& b, StoredUnit& u) {
  u.halves[0] = b.d;
  u.halves[1] = b.dmin;
  for (int g = 0; g < 16; ++g) {
    u.values[g] = b.scales[g] & 15;
    u.values[16 + g] = u8(b.scales[g] >> 4);
  }
  read_crumbs(b.qs, u.codes);
}

void read(const BlockQ3_K& b, StoredUnit& u) {
  u.halves[0] = b.d;
  for (int g = 0; g < 16; ++g) {
    const int low = (b.scales[g % 8] >> (4 * (g / 8))) & 15;
    const int high = (b.scales[8 + g % 4] >> (2 * (g / 4))) & 3;
    u.values[g] = u8(low | (high << 4));
  }
  read_crumbs(b.qs, u.codes);
  add_high_bits(b.hmask, 2, u.codes);
}

// q4_k and q5_k.
void read_scales(const std::uint8_t (&scales)[12], std::uint8_t* values) {
  std::uint8_t sc[8], mn[8];
  unpack_scales_6bit(scales, sc, mn);
  std::memcpy(values, sc, 8);
  std::memcpy(values + 8, mn, 8);
}

// 32 bytes per pair of blocks: low nibbles, then high nibbles.
void read_nibble_pairs(const std::uint8_t (&qs)[kSuperBlock / 2], std::uint8_t* codes) {
  for (int s = 0; s < 8; ++s) {
    for (int j = 0; j < 32; ++j) codes[32 * s + j] = (qs[32 * (s / 2) + j] >> (4 * (s % 2))) & 15;
  }
}

void read(const BlockQ4_K& b, StoredUnit& u) {
  u.halves[0] = b.d;
  u.halves[1] = b.dmin;
  read_scales(b.scales, u.values);
  read_nibble_pairs(b.qs, u.codes);
}

void read(const BlockQ5_K& b, StoredUnit& u) {
  u.halves[0] = b.d;
  u.halves[1] = b.dmin;
  read_scales(b.scales, u.values);
  read_nibble_pairs(b.qs, u.codes);
  add_high_bits(b.qh, 4, u.codes);
}

void read(const BlockQ6_K& b, StoredUnit& u) {
  u.halves[0] = b.d;
  std::memcpy(u.values, b.scales, sizeof(b.scales));
  for (int s = 0; s < 8; ++s) {
    const std::uint8_t* ql = b.ql + 64 * (s / 4) + 32 * (s % 2);
    const std::uint8_t* qh = b.qh + 32 * (s / 4);
    for (int j = 0; j < 32; ++j) {
      u.codes[32 * s + j] = u8(((ql[j] >> (4 * (s / 2 % 2))) & 15) | (((qh[j] >> (2 * (s % 4))) & 3) << 4));
    }
  }
}

void read(const BlockIQ4_NL& b, StoredUnit& u) {
  u.halves[0] = b.d;
  read_nibbles(b.qs, u.codes);
}

void read(const BlockIQ4_XS& b, StoredUnit& u) {
  u.halves[0] = b.d;
  for (int g = 0; g < 8; ++g) {
    const int low = (b.scales_l[g / 2] >> (4 * (g % 2))) & 15;
    u.values[g] = u8(low | (((b.scales_h >> (2 * g)) & 3) << 4));
    read_nibbles(b.qs + 16 * g, u.codes + 32 * g);
  }
}

void read(const BlockMXFP4& b, StoredUnit& u) {
  u.values[0] = b.e;
  read_nibbles(b.qs, u.codes);
}

// `digits` base-3 digits in each of `bytes` bytes, highest digit first; digit n of byte j is element
// n * bytes + j. A byte is its digits' value scaled up to 8 bits: times 3, the next digit comes out on top.
void read_base3(const std::uint8_t* packed, int bytes, int digits, std::uint8_t* codes) {
  for (int j = 0; j < bytes; ++j) {
    std::uint8_t rest = packed[j];
    for (int n = 0; n < digits; ++n) {
      codes[n * bytes + j] = u8((rest * 3) >> 8);
      rest = u8(rest * 3);
    }
  }
}

void read(const BlockTQ1_0& b, StoredUnit& u) {
  u.halves[0] = b.d;
  read_base3(b.qs, 32, 5, u.codes);
  read_base3(b.qs + 32, 16, 5, u.codes + 160);
  read_base3(b.qh, 4, 4, u.codes + 240);
}

void read(const BlockTQ2_0& b, StoredUnit& u) {
  u.halves[0] = b.d;
  read_crumbs(b.qs, u.codes);
}

template <class Block>
void read_block(const std::byte* row, std::int64_t index, StoredUnit& unit) {
  read(load_block<Block>(row, index), unit);
}

}  // namespace

void read_unit(Format format, const std::byte* row, std::int64_t index, StoredUnit& unit) {
  switch (format) {
    case Format::kQ4_0:
      return read_block<BlockQ4_0>(row, index, unit);
    case Format::kQ4_1:
      return read_block<BlockQ4_1>(row, index, unit);
    case Format::kQ5_0:
      return read_block<BlockQ5_0>(row, index, unit);
    case Format::kQ5_1:
      return read_block<BlockQ5_1>(row, index, unit);
    case Format::kQ8_0:
      return read_block<BlockQ8_0>(row, index, unit);
    case Format::kQ2_K:
      return read_block<BlockQ2_K>(row, index, unit);
    case Format::kQ3_K:
      return read_block<BlockQ3_K>(row, index, unit);
    case Format::kQ4_K:
      return read_block<BlockQ4_K>(row, index, unit);
    case Format::kQ5_K:
      return read_block<BlockQ5_K>(row, index, unit);
    case Format::kQ6_K:
      return read_block<BlockQ6_K>(row, index, unit);
    case Format::kIQ4_NL:
      return read_block<BlockIQ4_NL>(row, index, unit);
    case Format::kIQ4_XS:
      return read_block<BlockIQ4_XS>(row, index, unit);
    case Format::kMXFP4:
      return read_block<BlockMXFP4>(row, index, unit);
    case Format::kTQ1_0:
      return read_block<BlockTQ1_0>(row, index, unit);
    case Format::kTQ2_0:
      return read_block<BlockTQ2_0>(row, index, unit);
    default:
      return;
  }
}

}  // namespace narrow::kernels::packed

// The code layout that q5_0 and q5_1 share: nibbles of weights j and j + 16, fifth bits in a little-endian
// word.
#pragma once

#include <cstdint>

namespace narrow::formats {

// q: 32 codes.
inline void pack_five_bits(const std::uint8_t* q, std::uint8_t (&qh)[4], std::uint8_t (&qs)[16]) {
  std::uint32_t high = 0;
  for (int j = 0; j < 32; ++j) high |= static_cast<std::uint32_t>(q[j] >> 4) << j;
  for (int j = 0; j < 4; ++j) qh[j] = static_cast<std::uint8_t>(high >> (8 * j));
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<std::uint8_t>((q[j] & 15) | ((q[j + 16] & 15) << 4));
}

inline void unpack_five_bits(const std::uint8_t (&qh)[4], const std::uint8_t (&qs)[16],
                             std::uint8_t (&q)[32]) {
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<std::uint8_t>((qs[j] & 15) | (((qh[j / 8] >> (j % 8)) & 1) << 4));
    q[j + 16] = static_cast<std::uint8_t>((qs[j] >> 4) | (((qh[2 + j / 8] >> (j % 8)) & 1) << 4));
  }
}

}  // namespace narrow::formats

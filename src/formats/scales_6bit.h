// The twelve bytes that hold eight 6-bit scales and eight 6-bit mins in q4_k and q5_k; layout in q4_k.h.
#pragma once

#include <cstdint>

namespace narrow::formats {

inline void unpack_scales_6bit(const std::uint8_t (&packed)[12], std::uint8_t (&sc)[8],
                               std::uint8_t (&mn)[8]) {
  for (int b = 0; b < 4; ++b) {
    sc[b] = packed[b] & 63;
    mn[b] = packed[4 + b] & 63;
    sc[4 + b] = static_cast<std::uint8_t>((packed[8 + b] & 15) | ((packed[b] >> 6) << 4));
    mn[4 + b] = static_cast<std::uint8_t>((packed[8 + b] >> 4) | ((packed[4 + b] >> 6) << 4));
  }
}

// sc and mn: at least 8 values below 64.
inline void pack_scales_6bit(const std::uint8_t* sc, const std::uint8_t* mn, std::uint8_t (&packed)[12]) {
  for (int b = 0; b < 4; ++b) {
    packed[b] = static_cast<std::uint8_t>(sc[b] | ((sc[4 + b] >> 4) << 6));
    packed[4 + b] = static_cast<std::uint8_t>(mn[b] | ((mn[4 + b] >> 4) << 6));
    packed[8 + b] = static_cast<std::uint8_t>((sc[4 + b] & 15) | ((mn[4 + b] & 15) << 4));
  }
}

}  // namespace narrow::formats

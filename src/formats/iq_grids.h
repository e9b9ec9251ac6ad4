// Codebooks of the iq1, iq2 and iq3 formats: each entry holds the values of 8 (or 4) neighbouring elements.
// iq2 and iq3 entries are magnitudes; signs are stored beside them. iq1 entries are signed.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace narrow::formats {

template <std::size_t kEntries, std::size_t kWidth>
using IqGrid = std::array<std::array<std::int8_t, kWidth>, kEntries>;

extern const IqGrid<2048, 8> kIQ1Grid;    // -1, 0, 1 (iq1_s, iq1_m)
extern const IqGrid<256, 8> kIQ2XXSGrid;  // 8, 25, 43
extern const IqGrid<512, 8> kIQ2XSGrid;   // 8, 25, 43
extern const IqGrid<1024, 8> kIQ2SGrid;   // 8, 25, 43
extern const IqGrid<256, 4> kIQ3XXSGrid;  // 4, 12, ..., 52, 62
extern const IqGrid<512, 4> kIQ3SGrid;    // 1, 3, ..., 15

// The iq1 formats shift every grid value of a group by +-1/8.
inline constexpr float kIQ1Delta = 0.125f;

// The 8 signs (bit j set: element j negative) behind a stored 7-bit sign index: the eighth sign makes the
// number of negative elements even.
constexpr std::uint8_t iq_signs(std::uint32_t index7) {
  return static_cast<std::uint8_t>(index7 | ((std::popcount(index7) & 1u) << 7));
}

// dst[j] = scale * grid[j], negated where bit j of signs is set.
template <std::size_t kWidth>
inline void iq_expand(float scale, const std::array<std::int8_t, kWidth>& grid, std::uint32_t signs,
                      float* dst) {
  for (std::size_t j = 0; j < kWidth; ++j) {
    const float v = scale * static_cast<float>(grid[j]);
    dst[j] = (signs >> j) & 1u ? -v : v;
  }
}

}  // namespace narrow::formats

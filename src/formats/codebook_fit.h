// Scale search for formats that store one of 16 fixed levels per weight: x ~ scale * level[code].
#pragma once

#include <array>
#include <cstdint>

namespace narrow::formats {

inline constexpr int kCodebookBlock = 32;

// iq4_nl and iq4_xs: levels[code], ascending (ggml's kvalues_iq4nl).
inline constexpr std::array<std::int8_t, 16> kNonLinearLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                                 1,    13,   25,  38,  53,  69,  89,  113};

// The code whose level is nearest to each x[j] * inverse_scale; a tie takes the lower level.
void nearest_codes(const float* x, float inverse_scale, std::uint8_t* codes);

// What a scale achieves once every weight took its nearest level: with weights w, the best refit scale is
// qx / qq and lowers the weighted squared error by qx^2 / qq below that of an all-zero block.
struct LevelSums {
  float qx = 0;  // sum of w * level * x
  float qq = 0;  // sum of w * level^2
  float gain() const { return qq > 0 ? qx / qq * qx : 0; }
  float scale() const { return qq > 0 ? qx / qq : 0; }
};
LevelSums project(const float* x, const float* w, float inverse_scale);

// Weighted squared error of `scale` with nearest levels; the sum of w * x^2 for scale 0.
float level_error(const float* x, const float* w, float scale);

// The scale (of either sign) with the least weighted squared error that the search finds: the largest weight
// is mapped to and around both ends of the table, then the best candidate is refit and reassigned until it
// stays. `search` false: the largest weight sits on the longer end of the table. 0 for a block of zeros.
float fit_level_scale(const float* x, const float* w, bool search);

}  // namespace narrow::formats

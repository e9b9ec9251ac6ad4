// The search behind the unit codecs (formats/unit_codec.h) of the iq formats: codes of one group under a full
// metric M. The cheapest entries under M's diagonal are candidates for the exact loss; from the best one, a
// Jacobi step of the quadratic form gives the next target, which brings in what M's other entries ask for.
#pragma once

#include <cstdint>

#include "formats/iq_codebook.h"

namespace narrow::formats {

// The code of a group as stored: grid indices (one, or two of 4 weights), signs (iq1: 1 for the negative
// shift).
struct IqChoice {
  std::uint16_t index[2] = {};
  std::uint8_t signs = 0;
};

// In all of these `choice` holds the present code and receives the new one; scale is not 0.

// 8 weights x ~ scale * entry with signs; kEven: an even number of them negative.
template <bool kEven>
void decide_iq_group(const IqCodebook8& book, float scale, const float* x, const float* metric,
                     IqChoice* choice);

// 8 weights in two entries, an even number of them negative.
void decide_iq_pair(const IqCodebook4& book, float scale, const float* x, const float* metric,
                    IqChoice* choice);

// 4 weights with free signs.
void decide_iq_quad(const IqCodebook4& book, float scale, const float* x, const float* metric,
                    IqChoice* choice);

// 8 weights x ~ scale * (entry + shift); the shift stays unless it is free.
void decide_iq1_group(float scale, const float* x, const float* metric, bool free_shift, IqChoice* choice);

}  // namespace narrow::formats

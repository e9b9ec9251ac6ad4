// Ternary blocks (tq1_0, tq2_0): x ~ d * t with t in {-1, 0, 1} over 256 elements.
#pragma once

#include <cstdint>

#include "base/scalar.h"
#include "formats/format.h"

namespace narrow::formats {

// Picks d and t for one block: with search, the pair of least (weighted) squared error, found exactly; an
// already ternary block with an f16 scale comes out unchanged. Without: d = max |x|, as ggml. t[j] is stored
// plus one: 0, 1, 2.
f16 fit_ternary(const float* x, const float* importance, bool search, std::uint8_t* t);

}  // namespace narrow::formats

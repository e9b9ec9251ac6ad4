// Blocks of the files taken apart into codes and scales: what packing and the scalar oracle start from.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/scalar.h"
#include "kernels/packed/layout.h"

namespace narrow::kernels::packed {

// One unit of one row.
struct StoredUnit {
  std::uint8_t codes[kMaxUnit];  // in the order of k; q8_0's are shifted to 0..255
  f16 halves[2];
  // In the file's own offset. One byte each: the scales of all runs, then the minima of all runs.
  std::uint8_t values[kMaxValues];
};

// Unit `index` of a stored row of a format that kLayouts lists; leaves what the format lacks untouched.
void read_unit(Format format, const std::byte* row, std::int64_t index, StoredUnit& unit);

}  // namespace narrow::kernels::packed

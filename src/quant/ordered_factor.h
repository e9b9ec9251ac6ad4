// The factor that passes errors on, from column to column (of the inputs' Hessian) or from row to row (of the
// outputs' metric).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"

namespace narrow::quant {

struct OrderedFactor {
  std::vector<std::int64_t> order;  // by falling diagonal entries; what matters most is decided first
  AlignedBuffer<float> u;           // [n, n] upper triangular, rows and columns in `order`: m^-1 = u^T u
  float damping = 0, floor = 0;     // each diagonal entry d was increased by damping * d + floor
};

// m [n, n], symmetric; the members of a unit stay together in the order, and n is a multiple of it. A matrix
// that has no factor is damped ten times more, again and again. kNumeric: not even then.
Result<OrderedFactor> ordered_factor(std::span<const float> m, std::int64_t n, int unit, float damping);

}  // namespace narrow::quant

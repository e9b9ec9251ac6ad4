// Factors of symmetric positive definite matrices, through Eigen, on the calling thread: the same bits for
// any number of threads.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace narrow::ops {

// Upper triangular u [k, k] with h^-1 = u^T u (what GPTQ, Frantar et al. 2023, calls the Cholesky factor of
// the inverse), from h [k, k]; zeros below. u may be h. In fp32, and in fp64 where that fails. kNumeric: h is
// not positive definite even so, or holds a NaN.
Status inverse_factor(std::int64_t k, const float* h, float* u);

// x = h^-1 b in fp64 for b [n, k] (row by row), in place. kNumeric as above.
Status solve_rows(std::int64_t k, const float* h, std::int64_t n, float* b);

}  // namespace narrow::ops

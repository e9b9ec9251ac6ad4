// Products of fake-quantized matrices: what the integer kernels compute, in floating point.
#pragma once

#include <cstdint>

#include "ops/activations.h"
#include "ops/matmul.h"

namespace narrow::ops {

// y = x^ * w^T of a product whose weight is simulated, x^ = x.simulated(): sums in fp64, which are exact
// because scales have 12 significant bits (kernels/dense_int8.h) or are fp16 (blocks). A dense weight's sum
// is rounded once. With `row_scale` the groups of 32 are added up as kernels/packed.h says, so that symmetric
// block formats (q4_0, q8_0, iq4_nl, mxfp4) give the same bits; formats with runs of 16 or minima differ by
// fp32 rounding. Outlier columns are not in it.
void multiply_simulated(const Activations& x, const Product& product);

// y[t, n] += sum over the outlier columns c, in order, of x.outliers()[t, c] * w[n, c]: fp32, fused, for
// features [begin, end) of the product.
void add_outliers(const Activations& x, const Product& product, std::int64_t begin, std::int64_t end);

}  // namespace narrow::ops

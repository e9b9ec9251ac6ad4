// Second moments of rows: the Hessians of layer-wise quantization.
#pragma once

#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::ops {

// g[k, k] += x^T x for x [m, k]; on and below the diagonal, above it what comes out is of no use until
// fill_upper(). On all threads, in tiles whose sums do not depend on how many they are.
Status add_gram(ConstMatrix x, float* g);
// The upper triangle of the symmetric g [k, k] from the lower.
void fill_upper(std::int64_t k, float* g);

// c[a.cols, b.cols] += a^T b for rows that belong together (a.rows == b.rows).
Status add_cross(ConstMatrix a, ConstMatrix b, float* c);

}  // namespace narrow::ops

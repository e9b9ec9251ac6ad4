// Second moments of rows: the Hessians of layer-wise quantization.
#pragma once

#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::ops {

// g[k, k] += x^T x for x [m, k]; both triangles. On all threads, in tiles whose sums do not depend on how
// many they are.
Status add_gram(ConstMatrix x, float* g);

// c[a.cols, b.cols] += a^T b for rows that belong together (a.rows == b.rows).
Status add_cross(ConstMatrix a, ConstMatrix b, float* c);

}  // namespace narrow::ops

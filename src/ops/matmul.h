// y = x * W^T for weights of any stored format.
#pragma once

#include <span>

#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::ops {

// One weight and where its product goes.
struct Product {
  TensorView weight;  // [n, k], any format that decodes to float
  Matrix out;         // [m, n]
};

// out[m, n] = x[m, k] * weight[n, k]^T in fp32 for every product of the list; they share x and one parallel
// region. Tiles of output features, whose width depends on k alone, are handed to the threads; each tile
// decodes its rows into its thread's scratch (at most 1 MiB, more only where 16 rows need more) and
// multiplies there, so the results are the same for any number of threads. With m == 1 each feature is one
// dot product. kInvalidArgument names both shapes that do not fit, kUnsupported a weight that does not decode
// to float.
Status matmul(ConstMatrix x, std::span<const Product> products);
Status matmul(ConstMatrix x, const TensorView& weight, Matrix out);

}  // namespace narrow::ops

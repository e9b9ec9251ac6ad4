// y = x * W^T for weights of any stored format.
#pragma once

#include <span>

#include "base/result.h"
#include "ops/activations.h"
#include "ops/matrix.h"
#include "ops/weight.h"

namespace narrow::ops {

// One weight and where its product goes.
struct Product {
  Weight weight;  // [n, k], any format that decodes to float
  Matrix out;     // [m, n]
};

// out[m, n] = x[m, k] * weight[n, k]^T for every product of the list; they share x, which must hold the forms
// that the weights need (Forms::of). Packed weights: integer products (kernels/packed.h), panels handed to
// the threads. Others: fp32; tiles of output features, whose width depends on k alone, are handed to the
// threads; each tile decodes its rows into its thread's scratch (at most 1 MiB, more only where 16 rows need
// more) and multiplies there; with m == 1 each feature is one dot product. The results are the same for any
// number of threads. kInvalidArgument names both shapes that do not fit, kUnsupported a weight that does not
// decode to float.
Status matmul(const Activations& x, std::span<const Product> products);
Status matmul(const Activations& x, const Weight& weight, Matrix out);

}  // namespace narrow::ops

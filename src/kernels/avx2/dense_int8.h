// Products of dense int8 rows with AVX2.
#pragma once

#include "kernels/dense_int8.h"

namespace narrow::kernels::avx2 {

extern const DenseInt8Kernel kDenseInt8;

}  // namespace narrow::kernels::avx2

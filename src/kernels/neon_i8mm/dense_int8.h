// Products of dense int8 rows with the int8 matrix instructions.
#pragma once

#include "kernels/dense_int8.h"

namespace narrow::kernels::neon_i8mm {
extern const DenseInt8Kernel kDenseInt8;
}  // namespace narrow::kernels::neon_i8mm

// Products of dense int8 rows with many tokens through AMX.
#pragma once

#include "kernels/dense_int8.h"

namespace narrow::kernels::avx512_amx {

extern const DenseInt8Kernel kDenseInt8;

}  // namespace narrow::kernels::avx512_amx

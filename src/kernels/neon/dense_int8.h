// Products of dense int8 rows with the dot product instructions.
#pragma once

#include "kernels/dense_int8.h"

namespace narrow::kernels::neon {

void dense_int8_quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                             float* scale, std::int32_t* zero, std::int32_t* sum);

extern const DenseInt8Kernel kDenseInt8;

}  // namespace narrow::kernels::neon

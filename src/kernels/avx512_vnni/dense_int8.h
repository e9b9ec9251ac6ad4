// Products of dense int8 rows with AVX-512 VNNI.
#pragma once

#include "kernels/dense_int8.h"

namespace narrow::kernels::avx512_vnni {

void dense_int8_quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                             float* scale, std::int32_t* zero, std::int32_t* sum);
void dense_int8_multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
                         std::int64_t out_stride);

extern const DenseInt8Kernel kDenseInt8;

}  // namespace narrow::kernels::avx512_vnni

// Dense products on the calling thread alone, through oneDNN. Threads come from parallel_for around them: a
// call that is never split gives the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/scalar.h"

namespace narrow::ops {

// c[m, n] = alpha * a[m, k] * op(b) with op(b) = b[n, k]^T (transpose_b) or b[k, n]; ld* are row strides.
Status gemm_f32_single(bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                       const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                       std::int64_t ldc);

// c[m, n] = a[m, k] * b[n, k]^T, bf16 in, fp32 sums and out, all rows contiguous. Runs on all threads, in
// tiles of output features whose width does not depend on how many they are. Uses the processor's bf16
// instructions when it has them; the primitive of each shape is built once and kept.
Status gemm_bf16(std::int64_t m, std::int64_t n, std::int64_t k, const bf16* a, const bf16* b, float* c);

}  // namespace narrow::ops

// Attention with AVX2; kernels/attention.h says what it computes.
#pragma once

#include "kernels/attention.h"

namespace narrow::kernels::avx2 {
extern const AttentionKernels kAttention;
}  // namespace narrow::kernels::avx2

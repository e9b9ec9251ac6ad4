// Attention with AVX-512; kernels/attention.h says what it computes.
#pragma once

#include "kernels/attention.h"

namespace narrow::kernels::avx512_vnni {
extern const AttentionKernels kAttention;
}  // namespace narrow::kernels::avx512_vnni

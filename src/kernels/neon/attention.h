// Attention with NEON; kernels/attention.h says what it computes.
#pragma once

#include "kernels/attention.h"

namespace narrow::kernels::neon {
extern const AttentionKernels kAttention;
}  // namespace narrow::kernels::neon

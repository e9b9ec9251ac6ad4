// Attention in plain C++; kernels/attention.h says what it computes.
#pragma once

#include "kernels/attention.h"

namespace narrow::kernels::generic {
extern const AttentionKernels kAttention;
}  // namespace narrow::kernels::generic

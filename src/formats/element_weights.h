// The weight of each element's squared error in the scale searches of iq4_nl, iq4_xs, mxfp4, tq1_0, tq2_0.
#pragma once

#include "base/scalar.h"

namespace narrow::formats {

// w[j] in [0, 1] for the n elements of one block. With importance: proportional to it (the diagonal of the
// layer's Hessian when importance is E[activation^2]), scaled to a maximum of 1 so that sums cannot overflow.
// Without, or where the block's importance is all zero: 1 for each, plain least squares.
void element_weights(const float* importance, int n, float* w);

// Copies n elements, cut to a magnitude whose weighted sums stay finite and that no half-precision scale
// reaches anyway.
void load_clamped(const float* src, int n, float* x);

// Nearest f16, but the largest finite one in place of infinity.
f16 to_finite_f16(float f);

}  // namespace narrow::formats

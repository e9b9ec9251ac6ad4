// The weight of each element's squared error in the scale searches of iq4_nl, iq4_xs, mxfp4, tq1_0, tq2_0.
#pragma once

namespace narrow::formats {

// w[j] in [0, 1] for the n elements of one block. With importances: proportional to them, so that the search
// lowers sum(importance * error^2), the diagonal estimate of the layer's output error; the greatest becomes
// 1, so that sums cannot overflow. Without, or where the block's importances are all zero: 1 for each, plain
// least squares. Weighting by x^2 or by rms + |x| as well was measured and lost: SmolLM2-135M in iq4_nl has a
// mean KL divergence of 0.284 with equal weights, 0.287 with rms + |x| and 0.329 with x^2.
void element_weights(const float* importance, int n, float* w);

}  // namespace narrow::formats

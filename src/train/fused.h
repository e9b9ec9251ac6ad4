// Pieces of the layer graph that are bound by memory, each one pass forward and one backward. Float tensors
// on the CPU take them; everything else (fp64 in tests, bf16, CUDA) goes through plain tensor operations with
// the same meaning.
#pragma once

#include "train/torch.h"

namespace narrow::train {

// x [.., k] * w [n, k]^T + bias [n], which may be undefined.
at::Tensor linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias);

// The product behind it: out [m, n] = a [m, k] * b, where b is [k, n], or [n, k] if transposed_b; a is [k, m]
// if transposed_a. Contiguous. With `add` out += instead.
void multiply(const at::Tensor& a, bool transposed_a, const at::Tensor& b, bool transposed_b, at::Tensor& out,
              bool add = false);

// x / sqrt(mean(x^2) + eps) * gain over the last dimension (Zhang and Sennrich 2019).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps);

// silu(gate) * up (Shazeer 2020). Same shapes.
at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up);

// x [b, t, heads, d] turned by cos, sin [t, dims / 2] (Su et al. 2021): pairs (2i, 2i + 1) if interleaved,
// else (i, i + dims / 2); elements from dims on stay.
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool interleaved);

// softmax(cap(scale * scores) + mask) over the last dimension; scores [.., t, t], mask [t, t] of 0 and
// -infinity. softcap 0: none; else cap(x) = softcap * tanh(x / softcap).
at::Tensor masked_softmax(const at::Tensor& scores, double scale, double softcap, const at::Tensor& mask);

}  // namespace narrow::train

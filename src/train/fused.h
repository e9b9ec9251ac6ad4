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

struct AttentionShape {
  double scale = 1.0;       // of q.k
  double softcap = 0.0;     // cap(x) = softcap * tanh(x / softcap); 0: none
  std::int64_t window = 0;  // position p sees p - window + 1 .. p; 0: all up to p
};

// Causal attention: q [b, t, n_head, d], k and v [b, t, n_head_kv, d] -> [b, t, n_head * d]. Query heads
// share key heads in consecutive groups (Ainslie et al. 2023).
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionShape& shape);

}  // namespace narrow::train

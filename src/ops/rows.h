// Operations that treat the rows of a [m, k] matrix one by one, rows shared out to the threads.
#pragma once

#include <functional>
#include <span>

#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::ops {

// Calls body(r) for every row in [0, m), on all threads when the work (m * floats_per_row) pays for it.
void for_rows(std::int64_t m, std::int64_t floats_per_row, const std::function<void(std::int64_t)>& body);

// out[r, :] = scale * row ids[r] of the table, decoded to fp32. table [n, k], out [ids.size(), k].
// kInvalidArgument names an id outside the table, or the shapes.
Status embedding(const TensorView& table, std::span<const std::int32_t> ids, float scale, Matrix out);

// Every row of x is made of x.cols / k heads of k values; each is normalised by itself into out (may be x).
// With k == x.cols the whole row is one. gain (and bias, null for none) hold k values.
void rms_norm(ConstMatrix x, const float* gain, float eps, std::int64_t k, Matrix out);
void layer_norm(ConstMatrix x, const float* gain, const float* bias, float eps, Matrix out);

// y[r, :] += bias.
void add_bias(Matrix y, const float* bias);

// y += scale * x.
void add_scaled(ConstMatrix x, float scale, Matrix y);

// Rotates the first `dims` values of every head of `head_dim` values of every row, in place. cos and sin are
// [x.rows, dims / 2]. interleaved: pairs (2i, 2i + 1), otherwise (i, i + dims / 2).
void rope(Matrix x, std::int64_t head_dim, std::int64_t dims, bool interleaved, ConstMatrix cos,
          ConstMatrix sin);

// x *= scale, then x = cap * tanh(x / cap) unless cap is 0.
void scale_and_cap(Matrix x, float scale, float cap);

// An activation function on a row in place, and fused with the product by the other half of a gated
// feed-forward where the instruction set has that (null otherwise).
struct Activation {
  void (*plain)(float* x, std::int64_t k) = nullptr;
  void (*gated)(float* gate, const float* up, std::int64_t k) = nullptr;
};

}  // namespace narrow::ops

// What nodes on weights share: rounding to a grid as a differentiable function, and where training starts.
#pragma once

#include <algorithm>

#include "train/nodes/grid_kernel.h"
#include "train/torch.h"

namespace narrow::train {

// w [n, k] fp32 or fp64, contiguous, rounded to the grid of scale and min [n, k / group] (fp32; min unused
// where the codec has none) with the gradients of grid_kernel.h. Those of scale and min, times `factor`, go
// to latent_scale and latent_min, which scale and min were made of, if these require gradients; else anything
// of that shape may stand there. The codec must outlive the gradients.
struct ToGrid {
  const formats::GridCodec* codec;
  std::int64_t group;
  at::Tensor scale, min;
  at::Tensor latent_scale, latent_min;
  bool pass_clipped = false;
  double factor = 1;
};
at::Tensor round_to_grid(const at::Tensor& w, const ToGrid& grid);

// `value` (nothing else uses it) forward, gradients as if it were x.
at::Tensor straight_through(const at::Tensor& x, const at::Tensor& value);

// n stored rows of k weights as they decode, [n, k] fp32.
at::Tensor decoded_rows(Format format, const std::byte* rows, std::int64_t n, std::int64_t k);

// LSQ's factor on the gradient of a scale that n elements share (Esser et al. 2020, section 2.2).
double lsq_factor(double n, double greatest_level);

// values: what a grid's codes stand for. Each moves towards its reference by at most 0.49 of the step to the
// level beside it on that side (past an end: of the last step), so that it still rounds to the same value.
// Where the scale is 0 the reference itself is taken: there it rounds to the same value as everything.
void lean_towards(const GridView& grid, const float* reference, float* values);

// f(begin, end) over the n rows of a matrix of k columns, in chunks that are worth a thread.
template <class F>
void over_rows(std::int64_t n, std::int64_t k, const F& f) {
  at::parallel_for(0, n, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, k)), f);
}

}  // namespace narrow::train

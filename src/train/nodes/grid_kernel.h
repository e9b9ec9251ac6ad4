// Weights rounded to a grid of formats/grid.h, and the gradients of that: value = scale * level + min, where
// the level is nearest to t = (w - min) * (1 / scale). The rule, the same in apply and in encode: t is cut to
// the ends of the levels, then rounded to the nearest even whole number where levels are uniform; else the
// nearest level, a tie taking the lower. A value of the grid is given back bit for bit. A scale of 0 gives
// level 0 (the nearest to it), NaN gives NaN. Gradients (straight-through; Esser et al. 2020,
// arXiv:1902.08153, with a min as in Bhalgat et al. 2020, arXiv:2004.09576) are those of a surrogate: level =
// t + a constant for w inside the range of the grid, which reaches half a step past its ends, and a constant
// outside. So dvalue/dw is 1 inside, 0 outside; dvalue/dscale is level - t inside, level outside; dvalue/dmin
// is 0 inside, 1 outside. Where the scale is 0 all of w is outside, on the side of the sign of w - min: the
// derivative for the scale growing from 0.
#pragma once

#include <cstdint>

#include "formats/grid.h"

namespace narrow::train {

struct GridView {
  const formats::GridCodec* codec;  // its levels, and whether it has mins
  std::int64_t group;               // neighbours in a row that share a scale; divides k
  std::int64_t n, k;                // rows, columns
  const float* scale;               // [n, k / group], both
  const float* min;
};

// T is float or double; all in row-major [n, k]. Threaded over rows.
template <class T>
void grid_round(const GridView& grid, const T* w, T* value);

struct GridGradients {
  bool pass_clipped = false;  // dvalue/dw is 1 outside too
  float* scale = nullptr;     // [n, k / group] sums over the group, or null: not wanted
  float* min = nullptr;
};
// grad: dL/dvalue; grad_w: dL/dw.
template <class T>
void grid_round_backward(const GridView& grid, const T* w, const T* grad, T* grad_w,
                         const GridGradients& want);

// Codes of one row (k of them), those that grid_round's values stand for.
void grid_codes(const GridView& grid, std::int64_t row, const float* w, std::uint8_t* codes);

}  // namespace narrow::train

// Activation-aware scales (AWQ, Lin et al. 2023, https://arxiv.org/abs/2306.00978): inputs that are large are
// given larger weights, which their blocks then keep better, and are themselves made smaller by as much.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/quantizer.h"

namespace narrow::quant {

// Rows of a matrix that takes the scaled input. A sample of its rows is enough: scales are shared by all.
struct AwqMatrix {
  std::vector<float> w;            // [n, k]
  std::int64_t n = 0;              // rows given
  double weight = 1;               // of its errors: rows that these stand for
  Format format = Format::kQ4_0;   // that it will be stored in
  std::vector<float> mean_square;  // [k] E[x^2]
  std::span<const float> hessian;  // [k, k] sums or means of x x^T; empty: its diagonal from mean_square
};

struct AwqProblem {
  std::int64_t k = 0;                 // inputs of every matrix
  std::int64_t channels = 0;          // scales
  std::vector<std::int32_t> channel;  // [k] the scale of each input
  std::vector<float> mean_square;     // [channels] E[x^2]
  std::vector<AwqMatrix> matrices;
  bool search = true;  // of block scales, as the matrices will be quantized
};

struct AwqScales {
  std::vector<float> scale;  // [channels]: the weights' columns times, the inputs divided by; 1 for alpha 0
  float alpha = 0;
  double error = 0,
         plain_error = 0;  // output errors tr((W - Wq) H (W - Wq)^T) with these scales, and without
};

// s = E[x^2]^(alpha / 2) with alpha from a grid over [0, 1] by the output error of rounding to nearest with
// importances; normalised to 1 in the middle of its range and kept within kMostScale of it. Threaded; the
// same scales for any number of threads. kInvalidArgument for sizes that do not match, kUnsupported for a
// format that narrow does not write.
Result<AwqScales> search_awq(const AwqProblem& problem);

inline constexpr float kMostScale = 256.0f;

}  // namespace narrow::quant

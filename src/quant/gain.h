// Corrections that cost no bits: what a layer's float parameters can make up for, once its matrices are
// quantized.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace narrow::quant {

// The factors s [k] on the inputs of some matrices that share them (the norm's gains are multiplied by s)
// that minimise E |W x_o - Q diag(s) x_q|^2, W the exact and Q the stored weights, summed over the matrices.
// A linear system: sum_j (Q^T Q)_ij H_ij s_j = (Q^T W C)_ii.
class GainFit {
 public:
  // hessian [k, k] = E[x_q x_q^T]; cross [k, k] = E[x_o x_q^T], empty where both inputs are the same.
  GainFit(std::int64_t k, std::span<const float> hessian, std::span<const float> cross)
      : k_(k), hessian_(hessian), cross_(cross) {}
  // One of the matrices, [n, k] each.
  Status add(const float* exact, const float* stored, std::int64_t n);
  // The factors, held near 1 by `damping` times the system's diagonal; all 1 where nothing can be learned.
  Result<std::vector<float>> solve(float damping) const;

 private:
  std::int64_t k_;
  std::span<const float> hessian_, cross_;
  std::vector<float> left_, right_;
};

// What a bias [n] takes on: E[W x_o - Q x_q], from the inputs' means [k].
std::vector<float> bias_correction(const float* exact, const float* stored, std::int64_t n, std::int64_t k,
                                   std::span<const float> mean_original,
                                   std::span<const float> mean_quantized);

}  // namespace narrow::quant

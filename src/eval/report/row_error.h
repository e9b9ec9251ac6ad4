// Sums of squared errors of rows of weights, plain and weighted by what the inputs look like.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace narrow::eval::report {

struct RowError {
  double squared_error = 0, squared_weight = 0;
  double weighted_error = 0, weighted_weight = 0;
  double max_abs = 0;
  bool weighted = false;  // some row had an importance

  // importance [k] or null.
  void add(const float* exact, const float* stored, const float* importance, std::int64_t k) {
    for (std::int64_t i = 0; i < k; ++i) {
      const double w = exact[i], d = w - static_cast<double>(stored[i]);
      squared_error += d * d;
      squared_weight += w * w;
      max_abs = std::fmax(max_abs, std::fabs(d));
      if (importance == nullptr) continue;
      weighted_error += d * d * static_cast<double>(importance[i]);
      weighted_weight += w * w * static_cast<double>(importance[i]);
    }
    weighted = weighted || importance != nullptr;
  }
  void add(const RowError& o) {
    squared_error += o.squared_error;
    squared_weight += o.squared_weight;
    weighted_error += o.weighted_error;
    weighted_weight += o.weighted_weight;
    max_abs = std::fmax(max_abs, o.max_abs);
    weighted = weighted || o.weighted;
  }
  // Relative; 0 for weights that are all zero.
  double relative_rms() const { return squared_weight > 0 ? std::sqrt(squared_error / squared_weight) : 0; }
  double output_error() const {
    return weighted_weight > 0 ? std::sqrt(weighted_error / weighted_weight) : 0;
  }
  double best() const { return weighted ? output_error() : relative_rms(); }  // of what is known
};

// The importances of row r: its expert's where every expert has its own. Null for none.
inline const float* row_importance(const Shape& shape, std::span<const float> mean_square, std::int64_t r) {
  const std::int64_t k = shape.row_length();
  if (mean_square.empty()) return nullptr;
  if (shape.rank() != 3 || static_cast<std::int64_t>(mean_square.size()) == k) return mean_square.data();
  return mean_square.data() + r / shape[1] * k;
}

}  // namespace narrow::eval::report

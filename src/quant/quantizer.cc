#include "quant/quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace narrow::quant {

double WeightError::relative_rms() const {
  return sum_squared_weight > 0 ? std::sqrt(sum_squared_error / sum_squared_weight) : 0.0;
}

double WeightError::sqnr_db() const {
  if (sum_squared_error == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(sum_squared_weight / sum_squared_error);
}

void WeightError::add(const WeightError& o) {
  sum_squared_error += o.sum_squared_error;
  sum_squared_weight += o.sum_squared_weight;
  max_abs_error = std::max(max_abs_error, o.max_abs_error);
  output_error += o.output_error;
  rounded_output_error += o.rounded_output_error;
  output_energy += o.output_energy;
}

void WeightError::add_values(const float* exact, const float* stored, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double w = exact[i], d = w - static_cast<double>(stored[i]);
    sum_squared_error += d * d;
    sum_squared_weight += w * w;
    max_abs_error = std::max(max_abs_error, static_cast<float>(std::fabs(d)));
  }
}

}  // namespace narrow::quant

#include <cmath>

#include "kernels/generic/kernels.h"
#include "kernels/generic/lanes.h"

namespace narrow::kernels::generic {

float dot_f32(const float* x, const float* y, std::int64_t k) {
  Lanes lanes;
  for (std::int64_t i = 0; i < k; ++i) lanes.of(i) = std::fma(x[i], y[i], lanes.of(i));
  return lanes.sum();
}

void axpy_f32(float a, const float* x, float* y, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) y[i] = std::fma(a, x[i], y[i]);
}

void add_f32(const float* x, float* y, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) y[i] += x[i];
}

void mul_f32(const float* x, float* y, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) y[i] *= x[i];
}

}  // namespace narrow::kernels::generic

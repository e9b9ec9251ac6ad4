#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

float dot_f32(const float* x, const float* y, std::int64_t k) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * y[i];
  return static_cast<float>(sum);
}

void axpy_f32(float a, const float* x, float* y, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) y[i] += a * x[i];
}

void add_f32(const float* x, float* y, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) y[i] += x[i];
}

void mul_f32(const float* x, float* y, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) y[i] *= x[i];
}

}  // namespace narrow::kernels::generic

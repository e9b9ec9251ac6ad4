#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

void rope_half(float* x, const float* cos, const float* sin, std::int64_t dims) {
  const std::int64_t half = dims / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

void rope_interleaved(float* x, const float* cos, const float* sin, std::int64_t dims) {
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace narrow::kernels::generic

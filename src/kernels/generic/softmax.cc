#include <algorithm>
#include <cmath>

#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

void softmax(float* x, std::int64_t k) {
  if (k == 0) return;
  const float max = *std::max_element(x, x + k);
  double sum = 0.0;
  for (std::int64_t i = 0; i < k; ++i) {
    x[i] = std::exp(x[i] - max);
    sum += x[i];
  }
  const float scale = static_cast<float>(1.0 / sum);
  for (std::int64_t i = 0; i < k; ++i) x[i] *= scale;
}

void softcap(float* x, float cap, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) x[i] = cap * std::tanh(x[i] / cap);
}

}  // namespace narrow::kernels::generic

#include "kernels/generic/exp.h"
#include "kernels/generic/kernels.h"
#include "kernels/generic/lanes.h"

namespace narrow::kernels::generic {

void softmax(float* x, std::int64_t k) {
  if (k == 0) return;
  float max = x[0];
  for (std::int64_t i = 0; i < k; ++i) max = x[i] > max ? x[i] : max;
  Lanes sum;
  for (std::int64_t i = 0; i < k; ++i) {
    x[i] = exp_f32(x[i] - max);
    sum.of(i) += x[i];
  }
  const float scale = 1.0f / sum.sum();
  for (std::int64_t i = 0; i < k; ++i) x[i] *= scale;
}

void softcap(float* x, float cap, std::int64_t k) {
  // tanh(z) = 1 - 2 / (e^2z + 1)
  const float inverse = 2.0f / cap;
  for (std::int64_t i = 0; i < k; ++i) x[i] = cap * (1.0f - 2.0f / (exp_f32(x[i] * inverse) + 1.0f));
}

}  // namespace narrow::kernels::generic

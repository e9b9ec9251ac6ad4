#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/generic/kernels.h"
#include "kernels/packed.h"

namespace narrow::kernels::generic {

void quantize_row(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums) {
  for (std::int64_t g = 0; g < k / kActivationGroup; ++g) {
    const float* group = x + g * kActivationGroup;
    float absmax = 0.0f;
    bool nan = false;
    for (std::int64_t i = 0; i < kActivationGroup; ++i) {
      absmax = std::max(absmax, std::abs(group[i]));
      nan = nan || std::isnan(group[i]);
    }
    const float inverse = 127.0f / absmax;
    const bool usable = absmax > 0.0f && std::isfinite(inverse);
    scale[g] = nan ? std::numeric_limits<float>::quiet_NaN() : usable ? absmax / 127.0f : 0.0f;
    for (std::int64_t run = 0; run < kActivationGroup / kSumRun; ++run) {
      std::int32_t sum = 0;
      for (std::int64_t i = run * kSumRun; i < (run + 1) * kSumRun; ++i) {
        // What is not finite stays out of the integers: the scale carries it.
        const float v = usable ? std::nearbyint(group[i] * inverse) : 0.0f;
        const auto code = static_cast<std::int8_t>(v >= -127.0f && v <= 127.0f ? v : 0.0f);
        q[g * kActivationGroup + i] = code;
        sum += code;
      }
      sums[g * (kActivationGroup / kSumRun) + run] = sum;
    }
  }
}

void rms_norm_quantize(const float* x, const float* gain, float eps, std::int64_t k, std::int8_t* q,
                       float* scale, std::int32_t* sums) {
  std::vector<float> normed(static_cast<std::size_t>(k));
  rms_norm(x, gain, eps, normed.data(), k);
  quantize_row(normed.data(), k, q, scale, sums);
}

}  // namespace narrow::kernels::generic

#include "formats/element_weights.h"

#include <algorithm>

namespace narrow::formats {

void element_weights(const float* importance, int n, float* w) {
  const float top = importance != nullptr ? *std::max_element(importance, importance + n) : 0.0f;
  for (int j = 0; j < n; ++j) w[j] = top > 0 ? importance[j] / top : 1.0f;
}

}  // namespace narrow::formats

#include "ops/route.h"

#include <algorithm>
#include <numeric>

#include "kernels/dispatch.h"

namespace narrow::ops {

std::vector<Choice> choose_experts(Matrix logits, std::int64_t used, bool normalise) {
  std::vector<Choice> choices;
  choices.reserve(static_cast<std::size_t>(logits.rows * used));
  std::vector<std::int32_t> order(static_cast<std::size_t>(logits.cols));
  for (std::int64_t r = 0; r < logits.rows; ++r) {
    float* p = logits.row(r);
    kernels::kernels().softmax(p, logits.cols);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + used, order.end(),
                      [p](std::int32_t a, std::int32_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    float sum = 0.0f;
    for (std::int64_t i = 0; i < used; ++i) sum += p[order[static_cast<std::size_t>(i)]];
    const float scale = normalise ? 1.0f / sum : 1.0f;
    for (std::int64_t i = 0; i < used; ++i) {
      const std::int32_t e = order[static_cast<std::size_t>(i)];
      choices.push_back({e, p[e] * scale});
    }
  }
  return choices;
}

}  // namespace narrow::ops

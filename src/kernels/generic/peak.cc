#include "kernels/generic/kernels.h"

namespace narrow::kernels::generic {

std::int64_t int8_peak(std::int64_t rounds) {
  constexpr int kLanes = 64;
  std::int8_t a[kLanes], b[kLanes];
  std::uint32_t sum[kLanes] = {};  // may wrap around
  for (int i = 0; i < kLanes; ++i) {
    a[i] = static_cast<std::int8_t>(i);
    b[i] = static_cast<std::int8_t>(3 * i);
  }
  for (std::int64_t r = 0; r < rounds; ++r) {
    // The compiler must neither hoist the products out of the loop nor drop the sums.
    asm volatile("" : "+m"(a), "+m"(b));
    for (int i = 0; i < kLanes; ++i) sum[i] += static_cast<std::uint32_t>(a[i] * b[i]);
    asm volatile("" : "+m"(sum));
  }
  return rounds * kLanes * 2;
}

}  // namespace narrow::kernels::generic

#include <arm_neon.h>

#include "kernels/neon/kernels.h"

// Sum register n grows by 16 products.
#define NARROW_STEP(n) "sdot v" #n ".4s, %0.16b, %1.16b\n\t"

namespace narrow::kernels::neon {

// sdot has a latency of 3 to 4 and starts at most four times per cycle: sixteen independent sums. Written in
// assembly because a compiler drops sums that nobody reads.
std::int64_t int8_peak(std::int64_t rounds) {
  constexpr std::int64_t kProductsPerRound = 16 * 16;
  const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-2);
  for (std::int64_t r = 0; r < rounds; ++r) {
    asm volatile(NARROW_STEP(16) NARROW_STEP(17) NARROW_STEP(18) NARROW_STEP(19) NARROW_STEP(20)
                     NARROW_STEP(21) NARROW_STEP(22) NARROW_STEP(23) NARROW_STEP(24) NARROW_STEP(25)
                         NARROW_STEP(26) NARROW_STEP(27) NARROW_STEP(28) NARROW_STEP(29) NARROW_STEP(30)
                             NARROW_STEP(31)
                 :
                 : "w"(a), "w"(b)
                 : "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",
                   "v29", "v30", "v31");
  }
  return rounds * kProductsPerRound * 2;
}

}  // namespace narrow::kernels::neon

#undef NARROW_STEP

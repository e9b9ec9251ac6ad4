#include <immintrin.h>

#include "kernels/avx512_vnni/kernels.h"

// Sum register n grows by 64 products.
#define NARROW_STEP(n) "vpdpbusd %1, %0, %%zmm" #n "\n\t"

namespace narrow::kernels::avx512_vnni {

// vpdpbusd has a latency of 5 and starts at most twice per cycle: ten independent sums keep both ports busy,
// twelve leave some slack. Written in assembly because a compiler drops sums that nobody reads.
std::int64_t int8_peak(std::int64_t rounds) {
  constexpr std::int64_t kProductsPerRound = 12 * 64;
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
  for (std::int64_t r = 0; r < rounds; ++r) {
    asm volatile(NARROW_STEP(16) NARROW_STEP(17) NARROW_STEP(18) NARROW_STEP(19) NARROW_STEP(20)
                     NARROW_STEP(21) NARROW_STEP(22) NARROW_STEP(23) NARROW_STEP(24) NARROW_STEP(25)
                         NARROW_STEP(26) NARROW_STEP(27)
                 :
                 : "v"(a), "v"(b)
                 : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
                   "xmm26", "xmm27");
  }
  return rounds * kProductsPerRound * 2;
}

}  // namespace narrow::kernels::avx512_vnni

#undef NARROW_STEP

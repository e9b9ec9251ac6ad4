#include <immintrin.h>

#include "kernels/avx2/kernels.h"

// Sum register n grows by 32 products.
#define NARROW_STEP(n)                \
  "vpmaddubsw %1, %0, %%ymm15\n\t"    \
  "vpmaddwd %2, %%ymm15, %%ymm15\n\t" \
  "vpaddd %%ymm15, %%ymm" #n ", %%ymm" #n "\n\t"

namespace narrow::kernels::avx2 {

// Without dot-product instructions int32 sums of products take vpmaddubsw (pairs to int16), vpmaddwd (pairs
// to int32) and vpaddd, the only one of the three that waits for its last result. Written in assembly because
// a compiler drops sums that nobody reads.
std::int64_t int8_peak(std::int64_t rounds) {
  constexpr std::int64_t kProductsPerRound = 4 * 32;
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
  for (std::int64_t r = 0; r < rounds; ++r) {
    asm volatile(NARROW_STEP(4) NARROW_STEP(5) NARROW_STEP(6) NARROW_STEP(7)
                 :
                 : "x"(a), "x"(b), "x"(ones)
                 : "xmm4", "xmm5", "xmm6", "xmm7", "xmm15");
  }
  return rounds * kProductsPerRound * 2;
}

}  // namespace narrow::kernels::avx2

#undef NARROW_STEP

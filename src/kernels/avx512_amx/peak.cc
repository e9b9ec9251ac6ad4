#include "kernels/avx512_amx/peak.h"

#include "kernels/avx512_amx/tile.h"

namespace narrow::kernels::avx512_amx {

// A product of full tiles starts every 16 cycles and takes 52: four independent sums keep the unit busy.
std::int64_t int8_peak(std::int64_t rounds) {
  constexpr std::int64_t kProductsPerRound = 4 * 16 * 16 * 64;
  TileConfig config;
  for (int i = 0; i < 6; ++i) config.set(i, 16, 64);
  load_config(config);
  for (std::int64_t r = 0; r < rounds; ++r) {
    multiply_signed<0, 4, 5>();
    multiply_signed<1, 4, 5>();
    multiply_signed<2, 4, 5>();
    multiply_signed<3, 4, 5>();
  }
  release_tiles();
  return rounds * kProductsPerRound * 2;
}

}  // namespace narrow::kernels::avx512_amx

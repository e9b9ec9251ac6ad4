// The matrix tiles of AMX as functions. Instructions are written out, because the compilers' intrinsics want
// literal register numbers. They do not tell the compiler what memory they touch, so that registers need not
// be spilled around them: their order among themselves and load_sums is kept, and fence() orders them with
// everything else.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace narrow::kernels::avx512_amx {

// The operand of ldtilecfg (Intel's manual, "LDTILECFG"): rows and bytes per row of each of 8 tiles.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  constexpr void set(int tile, int n_rows, int bytes) {
    rows[tile] = static_cast<std::uint8_t>(n_rows);
    row_bytes[tile] = static_cast<std::uint16_t>(bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

static inline void load_config(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
// Back to the state in which switching this thread costs nothing.
static inline void release_tiles() { asm volatile("tilerelease"); }
[[gnu::always_inline]] static inline void fence() { asm volatile("" : : : "memory"); }

template <int kTile>
[[gnu::always_inline]] static inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
[[gnu::always_inline]] static inline void load_tile(const void* p, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile));
}
template <int kTile>
[[gnu::always_inline]] static inline void store_tile(void* p, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kTile));
}
// c += a * b: a [tokens, k] signed bytes, b [k / 4, features, 4] signed or unsigned bytes.
template <int kC, int kA, int kB>
[[gnu::always_inline]] static inline void multiply_signed() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}
template <int kC, int kA, int kB>
[[gnu::always_inline]] static inline void multiply_unsigned() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}
// A row of a stored tile plus `add`.
[[gnu::always_inline]] static inline __m512i load_sums(const void* row, __m512i add) {
  __m512i sums;
  asm volatile("vpaddd %1, %2, %0" : "=v"(sums) : "m"(*static_cast<const __m512i*>(row)), "v"(add));
  return sums;
}

}  // namespace narrow::kernels::avx512_amx

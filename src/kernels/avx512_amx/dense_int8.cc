#include "kernels/avx512_amx/dense_int8.h"

#include "kernels/avx512_amx/tile.h"
#include "kernels/avx512_vnni/dense_int8.h"
#include "kernels/generic/dense_int8.h"

namespace narrow::kernels::avx512_amx {
namespace {

using generic::DenseInt8Trailer;

// Up to this many tokens the time is that of reading weights, and avx512_vnni's kernel reads them as fast.
constexpr std::int64_t kFewTokens = 6;
constexpr std::int64_t kTileTokens = 16, kTileBytes = 1024;
// Tokens that stay in the second-level cache while all panels pass, tokens whose sums are kept between
// stretches of k, and stretches of which two panels (20 KB) stay in the first-level cache.
constexpr std::int64_t kChunkBytes = 512 * 1024, kBlockTokens = 128, kStretch = 640;

// 2 x 2 tiles of sums share two tiles of activations and two of weights: per 64 elements of k four loads of
// 8 cycles on two ports beside four products of 16 cycles, so that the matrix unit is never starved.
// Tiles 0..3 are sums [token tile * 2 + panel], 4 and 5 activations, 6 and 7 weights.
TileConfig config(std::int64_t first_rows, std::int64_t second_rows) {
  TileConfig c;
  for (int panel = 0; panel < 2; ++panel) {
    c.set(panel, static_cast<int>(first_rows), 64);
    c.set(2 + panel, static_cast<int>(second_rows), 64);
    c.set(6 + panel, 16, 64);
  }
  c.set(4, static_cast<int>(first_rows), 64);
  c.set(5, static_cast<int>(second_rows), 64);
  return c;
}

// Adds `length` elements of k to the sums of kTall token tiles x kWide panels, tile after tile in `sums`, or
// starts them.
template <int kTall, int kWide>
void sum_tiles(const std::int8_t* q, std::int64_t stride, const std::byte* panel, std::int64_t panel_size,
               std::int64_t length, bool start, std::byte* sums) {
  if (start) {
    zero_tile<0>();
    if (kWide > 1) zero_tile<1>();
    if (kTall > 1) zero_tile<2>();
    if (kTall > 1 && kWide > 1) zero_tile<3>();
  } else {
    load_tile<0>(sums, 64);
    if (kWide > 1) load_tile<1>(sums + kTileBytes, 64);
    if (kTall > 1) load_tile<2>(sums + 2 * kTileBytes, 64);
    if (kTall > 1 && kWide > 1) load_tile<3>(sums + 3 * kTileBytes, 64);
  }
  for (std::int64_t i = 0; i < length; i += kDenseInt8Pad) {
    load_tile<4>(q + i, stride);
    load_tile<6>(panel + i * kDenseInt8PanelRows, 64);
    multiply_unsigned<0, 4, 6>();
    if (kWide > 1) {
      load_tile<7>(panel + panel_size + i * kDenseInt8PanelRows, 64);
      multiply_unsigned<1, 4, 7>();
    }
    if (kTall > 1) {
      load_tile<5>(q + kTileTokens * stride + i, stride);
      multiply_unsigned<2, 5, 6>();
      if (kWide > 1) multiply_unsigned<3, 5, 7>();
    }
  }
  store_tile<0>(sums, 64);
  if (kWide > 1) store_tile<1>(sums + kTileBytes, 64);
  if (kTall > 1) store_tile<2>(sums + 2 * kTileBytes, 64);
  if (kTall > 1 && kWide > 1) store_tile<3>(sums + 3 * kTileBytes, 64);
}

// The end of the sum's formula (dense_int8.h) for one tile: `tokens` from t on, n_rows features.
void store_products(const std::byte* sums, const DenseInt8Rows& x, std::int64_t t, std::int64_t tokens,
                    const DenseInt8Trailer& trailer, std::int64_t n_rows, float* out,
                    std::int64_t out_stride) {
  const __m512 weight_scale = _mm512_load_ps(trailer.scale);
  const __m512i weight_zero = _mm512_load_si512(trailer.zero), weight_sum = _mm512_load_si512(trailer.sum);
  const auto lanes = static_cast<__mmask16>(n_rows >= 16 ? 0xffff : (1 << n_rows) - 1);
  // Multiplications of int32 are slow: symmetric weights, whose zero is 128 everywhere, need none.
  const bool symmetric = _mm512_cmpneq_epi32_mask(weight_zero, _mm512_set1_epi32(128)) == 0;
  for (std::int64_t i = 0; i < tokens; ++i, ++t, sums += 64, out += out_stride) {
    // As 32-bit integers wrap around, the order of the three parts does not matter.
    const __m512i row_sum = _mm512_set1_epi32(x.sum[t]);
    const __m512i offset =
        symmetric ? _mm512_slli_epi32(row_sum, 7) : _mm512_mullo_epi32(weight_zero, row_sum);
    __m512i sum = load_sums(sums, _mm512_sub_epi32(_mm512_setzero_si512(), offset));
    if (x.zero[t] != 0) {
      sum = _mm512_sub_epi32(sum, _mm512_mullo_epi32(weight_sum, _mm512_set1_epi32(x.zero[t])));
    }
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(x.scale[t]), weight_scale);
    _mm512_mask_storeu_ps(out, lanes, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
  }
}

// Tokens first .. end and all features, with the configured tiles.
void multiply_tokens(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, std::int64_t first,
                     std::int64_t end, float* out, std::int64_t out_stride) {
  constexpr std::int64_t kPair = 2 * kTileTokens;
  alignas(64) std::byte sums[kBlockTokens / kPair][4 * kTileBytes];
  const std::int64_t padded = dense_int8_padded(x.k), stride = dense_int8_stride(x.k);
  const std::int64_t panel_size = generic::dense_int8_panel_size(x.k);
  for (std::int64_t n = 0; n < n_rows; n += 32, panels += 2 * panel_size) {
    const bool wide = n_rows - n > 16;
    for (std::int64_t block = first; block < end; block += kBlockTokens) {
      const std::int64_t block_end = end - block < kBlockTokens ? end : block + kBlockTokens;
      for (std::int64_t i = 0; i < padded; i += kStretch) {
        const std::int64_t length = padded - i < kStretch ? padded - i : kStretch;
        const std::byte* panel = panels + i * kDenseInt8PanelRows;
        for (std::int64_t t = block; t < block_end; t += kPair) {
          const std::int8_t* q = x.q + t * stride + i;
          std::byte* to = sums[(t - block) / kPair];
          const bool tall = block_end - t > kTileTokens;
          if (tall && wide) sum_tiles<2, 2>(q, stride, panel, panel_size, length, i == 0, to);
          if (tall && !wide) sum_tiles<2, 1>(q, stride, panel, panel_size, length, i == 0, to);
          if (!tall && wide) sum_tiles<1, 2>(q, stride, panel, panel_size, length, i == 0, to);
          if (!tall && !wide) sum_tiles<1, 1>(q, stride, panel, panel_size, length, i == 0, to);
        }
      }
      for (std::int64_t t = block; t < block_end; t += kTileTokens) {
        const std::int64_t tokens = block_end - t < kTileTokens ? block_end - t : kTileTokens;
        const std::byte* from =
            sums[(t - block) / kPair] + (t - block) % kPair / kTileTokens * 2 * kTileBytes;
        for (std::int64_t p = 0; p < (wide ? 2 : 1); ++p) {
          const std::byte* trailer = panels + (p + 1) * panel_size - sizeof(DenseInt8Trailer);
          store_products(from + p * kTileBytes, x, t, tokens,
                         *reinterpret_cast<const DenseInt8Trailer*>(trailer), n_rows - n - 16 * p,
                         out + t * out_stride + n + 16 * p, out_stride);
        }
      }
    }
  }
}

void multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
              std::int64_t out_stride) {
  if (x.m <= kFewTokens) {
    avx512_vnni::dense_int8_multiply(panels, n_rows, x, out, out_stride);
    return;
  }
  // Whole pairs of tiles in chunks that stay in the second-level cache while all panels pass, then the rest
  // with tiles of its own height.
  constexpr std::int64_t kPair = 2 * kTileTokens;
  const std::int64_t whole = x.m / kPair * kPair, rest = x.m - whole;
  const std::int64_t fit = kChunkBytes / dense_int8_stride(x.k) / kPair * kPair;
  const std::int64_t chunk = fit > kPair ? fit : kPair;
  fence();
  if (whole > 0) {
    load_config(config(kTileTokens, kTileTokens));
    for (std::int64_t first = 0; first < whole; first += chunk) {
      const std::int64_t end = whole - first < chunk ? whole : first + chunk;
      multiply_tokens(panels, n_rows, x, first, end, out, out_stride);
    }
  }
  if (rest > 0) {
    const std::int64_t first_rows = rest < kTileTokens ? rest : kTileTokens;
    const std::int64_t second_rows = rest > kTileTokens ? rest - kTileTokens : 1;
    load_config(config(first_rows, second_rows));
    multiply_tokens(panels, n_rows, x, whole, x.m, out, out_stride);
  }
  release_tiles();
  fence();
}

}  // namespace

const DenseInt8Kernel kDenseInt8 = {
    .quantize_row = avx512_vnni::dense_int8_quantize_row,
    .panel_bytes = generic::dense_int8_panel_bytes,
    .pack = generic::dense_int8_pack,
    .multiply = multiply,
};

}  // namespace narrow::kernels::avx512_amx

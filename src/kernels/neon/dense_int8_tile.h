// What the dense int8 products of NEON share: from sums to results, and the walk over tokens and panels.
// Everything is static: each translation unit has its own.
#pragma once

#include <arm_neon.h>

#include "kernels/generic/dense_int8.h"

namespace narrow::kernels::neon {

// Four tokens by a panel: 16 sums of four features. Panels hold signed codes, so that unlike
// generic/dense_int8.h's their zero points are not shifted.
static constexpr int kDenseTileTokens = 4;
// Tokens in chunks that stay in the second-level cache (512 KB on the smallest cores) while all panels pass.
static constexpr std::int64_t kDenseChunkBytes = 256 * 1024;

// Sums of the 16 features of a panel and token t to the first n_rows results.
static inline void store_dense(const generic::DenseInt8Trailer& trailer, const int32x4_t* sums,
                               const DenseInt8Rows& x, std::int64_t t, std::int64_t n_rows, float* out) {
  float results[kDenseInt8PanelRows];
  float* to = n_rows >= kDenseInt8PanelRows ? out : results;
  for (int v = 0; v < 4; ++v) {
    int32x4_t s = vmlsq_n_s32(sums[v], vld1q_s32(trailer.zero + 4 * v), x.sum[t]);
    s = vmlsq_n_s32(s, vld1q_s32(trailer.sum + 4 * v), x.zero[t]);
    const float32x4_t scale = vmulq_n_f32(vld1q_f32(trailer.scale + 4 * v), x.scale[t]);
    vst1q_f32(to + 4 * v, vmulq_f32(scale, vcvtq_f32_s32(s)));
  }
  for (std::int64_t i = 0; to == results && i < n_rows; ++i) out[i] = results[i];
}

// tile(panel, n_rows, t, tokens, out) computes up to four tokens of one panel.
template <class Tile>
static inline void for_each_dense_tile(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x,
                                       float* out, std::int64_t out_stride, Tile tile) {
  const std::int64_t panel_size = generic::dense_int8_panel_size(x.k);
  const std::int64_t fit = kDenseChunkBytes / dense_int8_stride(x.k) / kDenseTileTokens * kDenseTileTokens;
  const std::int64_t chunk = fit > kDenseTileTokens ? fit : kDenseTileTokens;
  for (std::int64_t first = 0; first < x.m; first += chunk) {
    const std::int64_t end = x.m - first < chunk ? x.m : first + chunk;
    for (std::int64_t n = 0; n < n_rows; n += kDenseInt8PanelRows) {
      const std::byte* panel = panels + n / kDenseInt8PanelRows * panel_size;
      for (std::int64_t t = first; t < end; t += kDenseTileTokens) {
        tile(panel, n_rows - n, t, end - t < kDenseTileTokens ? end - t : kDenseTileTokens,
             out + t * out_stride + n);
      }
    }
  }
}

static inline const generic::DenseInt8Trailer& dense_trailer(const std::byte* panel, std::int64_t k) {
  return *reinterpret_cast<const generic::DenseInt8Trailer*>(panel + generic::dense_int8_code_bytes(k));
}

}  // namespace narrow::kernels::neon

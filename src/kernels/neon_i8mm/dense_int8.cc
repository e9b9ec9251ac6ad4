#include "kernels/neon_i8mm/dense_int8.h"

#include "kernels/neon/dense_int8.h"
#include "kernels/neon/dense_int8_tile.h"

namespace narrow::kernels::neon_i8mm {
namespace {

using generic::DenseInt8Trailer;

// As in neon/dense_int8.cc, signed codes, here per 8 elements of k: 8 pairs of features, each with the 8
// elements of its one feature and then of its other.
void pack(const std::int8_t* codes, std::int64_t stride, const float* scale, const std::int8_t* zero,
          std::int64_t n_rows, std::int64_t k, std::byte* panel) {
  const std::int64_t bytes = generic::dense_int8_code_bytes(k);
  __builtin_memset(panel, 0, static_cast<std::size_t>(bytes));
  auto* out = reinterpret_cast<std::int8_t*>(panel);
  DenseInt8Trailer trailer{};
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const std::int8_t* row = codes + r * stride;
    trailer.scale[r] = scale[r];
    trailer.zero[r] = zero == nullptr ? 0 : zero[r];
    for (std::int64_t i = 0; i < k; ++i) {
      out[i / 8 * 8 * kDenseInt8PanelRows + r * 8 + i % 8] = row[i];
      trailer.sum[r] += row[i] - trailer.zero[r];
    }
  }
  __builtin_memcpy(panel + bytes, &trailer, sizeof(trailer));
}

// Tokens in P pairs, of which the last may be one token twice (`odd`): 8 P sums of 2 features x 2 tokens.
template <int P>
void tile(const std::byte* panel, std::int64_t n_rows, const DenseInt8Rows& x, std::int64_t t, bool odd,
          float* out, std::int64_t out_stride) {
  const std::int64_t padded = dense_int8_padded(x.k), stride = dense_int8_stride(x.k);
  const std::int8_t *first[P], *second[P];
  for (int p = 0; p < P; ++p) {
    first[p] = x.q + (t + 2 * p) * stride;
    second[p] = odd && p == P - 1 ? first[p] : first[p] + stride;
  }
  const auto* w = reinterpret_cast<const std::int8_t*>(panel);
  int32x4_t acc[P][8];
  for (int p = 0; p < P; ++p) {
    for (int v = 0; v < 8; ++v) acc[p][v] = vdupq_n_s32(0);
  }
  for (std::int64_t i = 0; i < padded; i += 16, w += 256) {
    int8x16_t low[P], high[P];
    for (int p = 0; p < P; ++p) {
      const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(first[p] + i));
      const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(second[p] + i));
      low[p] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
      high[p] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
    }
    for (int v = 0; v < 8; ++v) {
      const int8x16_t w0 = vld1q_s8(w + 16 * v), w1 = vld1q_s8(w + 128 + 16 * v);
      for (int p = 0; p < P; ++p) acc[p][v] = vmmlaq_s32(acc[p][v], w0, low[p]);
      for (int p = 0; p < P; ++p) acc[p][v] = vmmlaq_s32(acc[p][v], w1, high[p]);
    }
  }
  const DenseInt8Trailer& trailer = neon::dense_trailer(panel, x.k);
  for (int p = 0; p < P; ++p) {
    int32x4_t even_token[4], odd_token[4];
    for (int v = 0; v < 4; ++v) {
      even_token[v] = vuzp1q_s32(acc[p][2 * v], acc[p][2 * v + 1]);
      odd_token[v] = vuzp2q_s32(acc[p][2 * v], acc[p][2 * v + 1]);
    }
    float* to = out + 2 * p * out_stride;
    neon::store_dense(trailer, even_token, x, t + 2 * p, n_rows, to);
    if (odd && p == P - 1) return;
    neon::store_dense(trailer, odd_token, x, t + 2 * p + 1, n_rows, to + out_stride);
  }
}

void multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
              std::int64_t out_stride) {
  neon::for_each_dense_tile(
      panels, n_rows, x, out, out_stride,
      [&](const std::byte* panel, std::int64_t rows, std::int64_t t, std::int64_t tokens, float* to) {
        if (tokens <= 2) return tile<1>(panel, rows, x, t, tokens == 1, to, out_stride);
        tile<2>(panel, rows, x, t, tokens == 3, to, out_stride);
      });
}

}  // namespace

const DenseInt8Kernel kDenseInt8 = {
    .quantize_row = neon::dense_int8_quantize_row,
    .panel_bytes = generic::dense_int8_panel_bytes,
    .pack = pack,
    .multiply = multiply,
};

}  // namespace narrow::kernels::neon_i8mm

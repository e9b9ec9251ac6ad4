#include "kernels/neon/dense_int8.h"

#include "kernels/neon/dense_int8_tile.h"

namespace narrow::kernels::neon {
namespace {

using generic::DenseInt8Row;
using generic::DenseInt8Trailer;

// The panel of generic/dense_int8.h with signed codes q = u - 128.
void pack(const std::int8_t* codes, std::int64_t stride, const float* scale, const std::int8_t* zero,
          std::int64_t n_rows, std::int64_t k, std::byte* panel) {
  generic::dense_int8_pack(codes, stride, scale, zero, n_rows, k, panel);
  const std::int64_t bytes = generic::dense_int8_code_bytes(k);
  for (std::int64_t i = 0; i < bytes; ++i) panel[i] ^= std::byte{0x80};
  auto* trailer = reinterpret_cast<DenseInt8Trailer*>(panel + bytes);
  for (int r = 0; r < kDenseInt8PanelRows; ++r) trailer->zero[r] -= 128;
}

// Each step of 16 elements loads 16 activations of each token and reads them from lanes.
template <int T>
void tile(const std::byte* panel, std::int64_t n_rows, const DenseInt8Rows& x, std::int64_t t, float* out,
          std::int64_t out_stride) {
  const std::int64_t padded = dense_int8_padded(x.k), stride = dense_int8_stride(x.k);
  const std::int8_t* q = x.q + t * stride;
  const auto* w = reinterpret_cast<const std::int8_t*>(panel);
  int32x4_t acc[T][4];
  for (int j = 0; j < T; ++j) {
    for (int v = 0; v < 4; ++v) acc[j][v] = vdupq_n_s32(0);
  }
  for (std::int64_t i = 0; i < padded; i += 16, w += 256) {
    int8x16_t a[T];
    for (int j = 0; j < T; ++j) a[j] = vld1q_s8(q + j * stride + i);
    for (int v = 0; v < 4; ++v) {
      const int8x16_t w0 = vld1q_s8(w + 16 * v), w1 = vld1q_s8(w + 64 + 16 * v);
      const int8x16_t w2 = vld1q_s8(w + 128 + 16 * v), w3 = vld1q_s8(w + 192 + 16 * v);
      for (int j = 0; j < T; ++j) acc[j][v] = vdotq_laneq_s32(acc[j][v], w0, a[j], 0);
      for (int j = 0; j < T; ++j) acc[j][v] = vdotq_laneq_s32(acc[j][v], w1, a[j], 1);
      for (int j = 0; j < T; ++j) acc[j][v] = vdotq_laneq_s32(acc[j][v], w2, a[j], 2);
      for (int j = 0; j < T; ++j) acc[j][v] = vdotq_laneq_s32(acc[j][v], w3, a[j], 3);
    }
  }
  const DenseInt8Trailer& trailer = dense_trailer(panel, x.k);
  for (int j = 0; j < T; ++j) store_dense(trailer, acc[j], x, t + j, n_rows, out + j * out_stride);
}

void multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
              std::int64_t out_stride) {
  for_each_dense_tile(
      panels, n_rows, x, out, out_stride,
      [&](const std::byte* panel, std::int64_t rows, std::int64_t t, std::int64_t tokens, float* to) {
        if (tokens == 1) return tile<1>(panel, rows, x, t, to, out_stride);
        if (tokens == 2) return tile<2>(panel, rows, x, t, to, out_stride);
        if (tokens == 3) return tile<3>(panel, rows, x, t, to, out_stride);
        tile<4>(panel, rows, x, t, to, out_stride);
      });
}

// Four values at x of a row of which `left` are left; zeros beyond.
inline float32x4_t load_some(const float* x, std::int64_t left) {
  if (left >= 4) return vld1q_f32(x);
  float four[4] = {};
  for (std::int64_t i = 0; i < left; ++i) four[i] = x[i];
  return vld1q_f32(four);
}

}  // namespace

void dense_int8_quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                             float* scale, std::int32_t* zero, std::int32_t* sum) {
  float32x4_t lo = vdupq_n_f32(0.0f), hi = lo;
  uint32x4_t number = vdupq_n_u32(0xffffffffu);
  for (std::int64_t i = 0; i < k; i += 4) {
    const float32x4_t v = load_some(x + i, k - i);
    lo = vminq_f32(lo, v);
    hi = vmaxq_f32(hi, v);
    number = vandq_u32(number, vceqq_f32(v, v));
  }
  const DenseInt8Row row =
      generic::dense_int8_row(scheme, vminvq_f32(lo), vmaxvq_f32(hi), vminvq_u32(number) == 0);
  const float32x4_t z = vdupq_n_f32(static_cast<float>(row.zero));
  const float32x4_t least = vdupq_n_f32(scheme.asymmetric ? -128.0f : -127.0f), most = vdupq_n_f32(127.0f);
  std::int32_t total = 0;
  for (std::int64_t i = 0; i < dense_int8_padded(k); i += 4) {
    std::int32_t codes[4] = {};
    if (row.usable && i < k) {
      const float32x4_t v = vaddq_f32(vrndnq_f32(vmulq_n_f32(load_some(x + i, k - i), row.inverse)), z);
      vst1q_s32(codes, vcvtq_s32_f32(vminq_f32(vmaxq_f32(v, least), most)));
    }
    for (std::int64_t j = 0; j < 4; ++j) {
      const std::int32_t code = i + j < k ? codes[j] : 0;
      q[i + j] = static_cast<std::int8_t>(code);
      total += code;
    }
  }
  *scale = row.scale;
  *zero = row.zero;
  *sum = total;
}

const DenseInt8Kernel kDenseInt8 = {
    .quantize_row = dense_int8_quantize_row,
    .panel_bytes = generic::dense_int8_panel_bytes,
    .pack = pack,
    .multiply = multiply,
};

}  // namespace narrow::kernels::neon

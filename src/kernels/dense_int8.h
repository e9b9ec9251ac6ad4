// Integer products of whole rows ("W8A8"): int8 weights with one scale per output channel, int8 activations
// with one scale per token. This header is the arithmetic that every instruction set reproduces bit for bit,
// for any number of rows, tokens and threads; generic/dense_int8.cc is its readable form.
//
// Weights:     w[n, i] = S[n] * (q[n, i] - Z[n]),   q int8; Z is 0 for symmetric weights.
// Activations: x[t, i] = dx[t] * (q[t, i] - z[t]),  q int8; z is 0 for symmetric activations.
// y[t, n] = (dx[t] * S[n]) * float(sum over i of (q[t, i] - z[t]) * (q[n, i] - Z[n]))
// The sum is an exact int32 (kMaxDense* below), the rest is fp32 rounded once each in the order written.
// The schemes are those of Jacob et al. 2018, "Quantization and training of neural networks for efficient
// integer-arithmetic-only inference", per channel and per token.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels {

// The longest rows whose sum fits an int32: symmetric codes reach 128 * 127, an asymmetric side reaches 255.
inline constexpr std::int64_t kMaxDenseSymmetric = 131072;
inline constexpr std::int64_t kMaxDenseAsymmetricRows = 65536;  // asymmetric activations, symmetric weights
inline constexpr std::int64_t kMaxDenseAsymmetric = 32768;      // asymmetric weights
static_assert(128 * 127 * kMaxDenseSymmetric <= 0x7fffffff);
static_assert(255 * 128 * kMaxDenseAsymmetricRows <= 0x7fffffff);
static_assert(255 * 255 * kMaxDenseAsymmetric <= 0x7fffffff);

// Codes of a row are padded to a multiple of this many (with what does not change the product).
inline constexpr std::int64_t kDenseInt8Pad = 64;
constexpr std::int64_t dense_int8_padded(std::int64_t k) {
  return (k + kDenseInt8Pad - 1) / kDenseInt8Pad * kDenseInt8Pad;
}
// Bytes from one activation row to the next: an odd number of cache lines, so that a tile's rows fall into
// different sets of the cache.
constexpr std::int64_t dense_int8_stride(std::int64_t k) { return dense_int8_padded(k) | kDenseInt8Pad; }

// A scale rounded up to 12 significant bits. Products of such scales with codes, and with each other, are
// exact in fp32: what the integers compute is, bit for bit, the product of the dequantized matrices summed in
// fp64 and rounded once. Costs at most 1/4096 of the step. Static: kernels of each instruction set have their
// own.
static inline float dense_int8_scale(float scale) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &scale, sizeof bits);
  bits = (bits + 0xfffu) & ~0xfffu;
  __builtin_memcpy(&scale, &bits, sizeof bits);
  return scale;
}

// Output features per panel, on every instruction set.
inline constexpr std::int64_t kDenseInt8PanelRows = 16;

// How activation rows become int8. Dynamic: scale and zero point from each row's own values,
//   symmetric:  scale = short(absmax / 127), q = round(x * inverse) in [-127, 127], z = 0
//   asymmetric: lo = min(0, min x), hi = max(0, max x), scale = short((hi - lo) / 255),
//               z = round(-128 - lo * inverse), q = round(x * inverse) + z in [-128, 127]
// with inverse = 1 / scale and short = dense_int8_scale. Static (scale > 0): the given scale and zero point;
// values beyond saturate.
// Rounding is to nearest even. A dynamic row of zeros, or so small that inverse is infinite, has scale 0 and
// q 0. A row with a NaN has scale NaN, a dynamic one whose range is infinite has scale infinite, both with q
// 0: y is then not a number either.
struct DenseInt8Scheme {
  bool asymmetric = false;
  float scale = 0.0f;     // static if > 0 (finite, and so is 1 / scale), else dynamic
  std::int32_t zero = 0;  // static asymmetric only, -128 .. 127
};

// m quantized activation rows of k values; codes from k to dense_int8_padded(k) are 0.
struct DenseInt8Rows {
  const std::int8_t* q = nullptr;      // [m, dense_int8_stride(k)]
  const float* scale = nullptr;        // [m]
  const std::int32_t* zero = nullptr;  // [m]
  const std::int32_t* sum = nullptr;   // [m]: sum of q
  std::int64_t m = 0, k = 0;
};

struct DenseInt8Kernel {
  // One activation row: q [dense_int8_padded(k)], scale, zero and sum one value each.
  void (*quantize_row)(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                       float* scale, std::int32_t* zero, std::int32_t* sum);
  // Bytes of one panel of rows of k elements, a multiple of 64.
  std::size_t (*panel_bytes)(std::int64_t k);
  // Interleaves n_rows (1 .. kDenseInt8PanelRows) rows of codes, `stride` apart, into one panel (64-byte
  // aligned); missing rows are zero. scale [n_rows]; zero [n_rows] or null for symmetric weights.
  void (*pack)(const std::int8_t* codes, std::int64_t stride, const float* scale, const std::int8_t* zero,
               std::int64_t n_rows, std::int64_t k, std::byte* panel);
  // out[t * out_stride + i] = y[t, i] for t in [0, x.m) and the first n_rows features i of consecutive
  // panels (all full but the last).
  void (*multiply)(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
                   std::int64_t out_stride);
};

}  // namespace narrow::kernels

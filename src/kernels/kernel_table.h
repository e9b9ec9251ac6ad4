// The set of compute kernels of one instruction set: raw pointers in and out, no tensors, no threads.
// generic/ is the readable oracle; every other table is tested against it. Lengths are element counts and may
// be any value >= 0; pointers need no alignment. Unless said otherwise an output may be its own input, but
// must not overlap it partly.
//
// Every table gives the same bits (of a NaN only that it is one): activations are rounded to int8 later on,
// where the smallest difference may flip a code. generic/ spells out how:
// - A sum over k has 64 lanes that start at 0. Lane i % 64 takes element i, in order, products by fused
//   multiply-add. Then lanes are added by halves: lane l + lane (l + 32), + (l + 16), .. + (l + 1).
// - Element by element the same operations in the same order, fused only where generic/ says std::fma
//   (axpy_f32 is, rope is not); divisions and square roots are exact, never estimates.
// - e^x is the polynomial of generic/exp.h: 0 where the result would be denormal, limited above, NaN for NaN.
// - vec_dot equals dot_f32 of the decoded row, rms_norm_quantize equals quantize_row of rms_norm's output.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/packed.h"

namespace narrow::kernels {

struct AttentionKernels;  // kernels/attention.h
struct DenseInt8Kernel;   // kernels/dense_int8.h

// sum over i of w[i] * x[i], where w is one stored row of k elements (k a multiple of the format's block
// size).
using VecDot = float (*)(const std::byte* w, const float* x, std::int64_t k);

// Formats with ids below this may have a vec_dot of their own.
inline constexpr std::size_t kVecDotSlots = 40;

struct KernelTable {
  std::string_view name;  // "generic", "avx2", "avx512_vnni", "avx512_amx", ..: the values of NARROW_ISA

  // sum of x[i] * y[i]
  float (*dot_f32)(const float* x, const float* y, std::int64_t k);
  // y[i] += a * x[i]
  void (*axpy_f32)(float a, const float* x, float* y, std::int64_t k);
  // y[i] += x[i]
  void (*add_f32)(const float* x, float* y, std::int64_t k);
  // y[i] *= x[i]
  void (*mul_f32)(const float* x, float* y, std::int64_t k);

  // Indexed by the format's on-disk id. Null: decode the row with formats/ and use dot_f32.
  std::array<VecDot, kVecDotSlots> vec_dot;

  // Features per panel of packed weights, and the integer kernels by the format's on-disk id. Null: the
  // format has none here; its rows are decoded.
  int panel_rows;
  std::array<const PackedKernel*, kVecDotSlots> packed;

  // Attention over cached keys and values; products of per-channel int8 weights.
  const AttentionKernels* attention;
  const DenseInt8Kernel* dense_int8;

  // One activation row to int8 (packed.h): q [k], scale [k / 32], sums [k / 16]; k a multiple of 32.
  void (*quantize_row)(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums);
  // quantize_row of rms_norm's output, which is not written.
  void (*rms_norm_quantize)(const float* x, const float* gain, float eps, std::int64_t k, std::int8_t* q,
                            float* scale, std::int32_t* sums);

  // y = x / sqrt(mean(x^2) + eps) * gain (Zhang and Sennrich 2019, "Root mean square layer normalization").
  void (*rms_norm)(const float* x, const float* gain, float eps, float* y, std::int64_t k);
  // y = (x - mean) / sqrt(variance + eps) * gain + bias; bias may be null (Ba et al. 2016).
  void (*layer_norm)(const float* x, const float* gain, const float* bias, float eps, float* y,
                     std::int64_t k);

  // Rotary position embedding in place (Su et al. 2021): `dims` values of one head, dims even; cos and sin
  // hold dims / 2 values. half rotates pairs (i, i + dims/2), interleaved pairs (2i, 2i + 1).
  void (*rope_half)(float* x, const float* cos, const float* sin, std::int64_t dims);
  void (*rope_interleaved)(float* x, const float* cos, const float* sin, std::int64_t dims);

  // In place: x = exp(x - max) / sum. At least one value is finite; -inf becomes 0.
  void (*softmax)(float* x, std::int64_t k);
  // In place: x = cap * tanh(x / cap).
  void (*softcap)(float* x, float cap, std::int64_t k);

  // In place. silu: x / (1 + exp(-x)). gelu_tanh and gelu_erf: Hendrycks and Gimpel 2016, the tanh
  // approximation and the exact form.
  void (*silu)(float* x, std::int64_t k);
  void (*gelu_tanh)(float* x, std::int64_t k);
  void (*gelu_erf)(float* x, std::int64_t k);
  void (*relu)(float* x, std::int64_t k);
  // gate[i] = f(gate[i]) * up[i] with the functions above (Shazeer 2020, "GLU variants").
  void (*silu_mul)(float* gate, const float* up, std::int64_t k);
  void (*gelu_tanh_mul)(float* gate, const float* up, std::int64_t k);

  // The arithmetic limit, for benchmarks: nothing but independent int8 products summed in int32, without
  // memory. Returns the operations done, two per product; its time grows with `rounds`.
  std::int64_t (*int8_peak)(std::int64_t rounds);
};

}  // namespace narrow::kernels

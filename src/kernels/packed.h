// Integer products of packed weights and quantized activations. This header is the arithmetic that every
// instruction set reproduces bit for bit, for any number of rows, tokens and threads; generic/packed.cc is
// its readable form.
//
// Activations: each row of k values (k a multiple of 32) is cut into groups of 32 with one fp32 scale:
//   scale = absmax / 127, q = round to nearest even (x * (127 / absmax)) in [-127, 127];
//   a group whose absmax is 0 or so small that 127 / absmax is infinite has scale 0 and q 0;
//   with a NaN in the group the scale is NaN, with an infinity it is infinite: y is then not a number either.
//
// Weights: real = S * (level - offset) - M, with unsigned integer levels (stored codes, or what the format's
// table has for them), one fp32 S (and M where the format has a minimum) per run of 32 or of 16 elements; S
// and M are exact in fp32 (an fp16 times a small integer). packed/layout.h has each format's numbers.
//
// y[t, n] starts at 0 and walks the groups g = 0 .. k/32-1 in order; all operations are fp32, rounded once
// each, fma is fused; isum are exact int32 sums of (level - offset) * q:
//   runs of 32:  y = fma(float(isum) * S, scale[t, g], y)
//   runs of 16:  u = float(isum_0) * S_0;  u = fma(float(isum_1), S_1, u);  y = fma(u, scale[t, g], y)
//   then, with minima, for each run r of the group in order:
//                y = fma(-M_r, scale[t, g] * float(sum of q over the run), y)
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels {

// Elements of an activation row that share a scale, and that share an entry of `sums`.
inline constexpr std::int64_t kActivationGroup = 32;
inline constexpr std::int64_t kSumRun = 16;

// m quantized activation rows of k values, k a positive multiple of 32; rows follow each other without gaps.
struct QuantizedRows {
  const std::int8_t* q = nullptr;      // [m, k]
  const float* scale = nullptr;        // [m, k / 32]
  const std::int32_t* sums = nullptr;  // [m, k / 16]: sum of q over each run of 16
  std::int64_t m = 0, k = 0;
  // Not 0: names these values, and no others ever in this process, so that what a kernel derived from them
  // for one call serves the next one with the same scratch.
  std::uint64_t id = 0;
};

// At the start of a kernel's scratch: which rows the rest was prepared for. Zero when the scratch is new.
struct PreparedFor {
  std::uint64_t id = 0;
  std::uint64_t kernel = 0;
};
inline constexpr std::size_t kPreparedBytes = 64;  // room for it that keeps the alignment
static_assert(sizeof(PreparedFor) <= kPreparedBytes);

// Kernels of one weight format. Weights lie in panels of KernelTable::panel_rows output features whose codes
// and scales are interleaved so that one vector lane is one feature; the last panel of a matrix is filled up
// with zero weights. A panel takes as many bits as its rows take in the file (scales keep their width), but
// for tq1_0, which takes tq2_0's.
struct PackedKernel {
  // Bytes of one panel of rows of k elements, a multiple of 64.
  std::size_t (*panel_bytes)(std::int64_t k);
  // Interleaves n_rows (1 .. panel_rows) stored rows, stride_bytes apart, into one panel (64-byte aligned).
  void (*pack)(const std::byte* rows, std::size_t stride_bytes, std::int64_t n_rows, std::int64_t k,
               std::byte* panel);
  // Work memory of multiply, 64-byte aligned. Its first kPreparedBytes bytes must be zero or as an earlier
  // call with the same scratch left them, if rows with an id are used.
  std::size_t (*scratch_bytes)(std::int64_t k, std::int64_t m);
  // out[t * out_stride + i] = y[t, i] for t in [0, x.m) and the first n_rows features i of consecutive
  // panels (all full but the last). Other floats of out are left alone. A call that cannot
  // use what an earlier one prepared does about as much more work as one panel's products.
  void (*multiply)(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x, float* out,
                   std::int64_t out_stride, std::byte* scratch);
};

}  // namespace narrow::kernels

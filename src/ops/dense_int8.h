// The W8A8 path: products of weights with one int8 scale per output channel and activations with one per
// token (kernels/dense_int8.h has the arithmetic and its limits).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/huge_buffer.h"
#include "base/result.h"
#include "kernels/dense_int8.h"
#include "ops/matrix.h"
#include "tensor/tensor.h"

namespace narrow::ops {

// w[r, i] = scale[r] * (codes[r, i] - zero[r]); zero is empty for symmetric weights.
struct DenseInt8Codes {
  std::int64_t n = 0, k = 0;
  std::vector<std::int8_t> codes;  // [n, k]
  std::vector<float> scale;        // [n]
  std::vector<std::int8_t> zero;   // [n] or empty
};

// Each row rounded to nearest. Symmetric: scale = absmax / 127, codes in [-127, 127]. Asymmetric: from
// min(0, least) to max(0, greatest) in 255 steps. kNumeric names the row of a value that is not finite.
Result<DenseInt8Codes> quantize_dense(const float* w, std::int64_t n, std::int64_t k,
                                      bool asymmetric = false);

// A weight [n, k] ready for products. Owns its panels, in the layout of the instruction set in use.
class DenseInt8Weight {
 public:
  DenseInt8Weight() = default;
  bool empty() const { return n_ == 0; }
  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }
  bool asymmetric() const { return asymmetric_; }
  std::size_t bytes() const { return panels_.size(); }
  const std::byte* panels() const { return panels_.data(); }

 private:
  friend Result<DenseInt8Weight> pack_dense(const DenseInt8Codes& codes);
  friend Result<DenseInt8Weight> pack_dense(const TensorView& stored, bool asymmetric);
  DenseInt8Weight(std::int64_t n, std::int64_t k, bool asymmetric);

  std::int64_t n_ = 0, k_ = 0;
  bool asymmetric_ = false;
  HugeBuffer panels_;
};

// kInvalidArgument: rows too long for an int32 sum. Throws std::bad_alloc.
Result<DenseInt8Weight> pack_dense(const DenseInt8Codes& codes);
// A stored weight [n, k] of any format that decodes to float, decoded, quantized and packed panel by panel on
// all threads. kUnsupported: not a number format; kNumeric as quantize_dense.
Result<DenseInt8Weight> pack_dense(const TensorView& stored, bool asymmetric = false);

// Activation rows in int8; memory grows to the largest seen and stays.
class DenseInt8Activations {
 public:
  // Quantizes the rows of x, on all threads when that pays. kInvalidArgument: a static scale that is not a
  // positive number with a finite inverse, or a zero point beyond -128 .. 127.
  Status assign(ConstMatrix x, const kernels::DenseInt8Scheme& scheme);
  const kernels::DenseInt8Rows& rows() const { return rows_; }
  bool asymmetric() const { return asymmetric_; }

 private:
  kernels::DenseInt8Rows rows_;
  bool asymmetric_ = false;
  AlignedBuffer<std::int8_t> q_;
  AlignedBuffer<float> scale_;
  AlignedBuffer<std::int32_t> zero_, sum_;
};

struct DenseInt8Product {
  const DenseInt8Weight* weight = nullptr;  // [n, k]
  Matrix out;                               // [m, n]
};

// out[m, n] = x[m, k] * weight[n, k]^T for every product of the list, in one parallel region whose items are
// runs of panels. The results are the same for any number of threads and any split. kInvalidArgument names
// shapes that do not fit, and rows that are too long with an asymmetric side.
Status matmul(const DenseInt8Activations& x, std::span<const DenseInt8Product> products);
Status matmul(const DenseInt8Activations& x, const DenseInt8Weight& weight, Matrix out);

}  // namespace narrow::ops

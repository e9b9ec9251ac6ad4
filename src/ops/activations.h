// The left side of products: rows of fp32, and the same rows in int8 where weights are packed.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/aligned_buffer.h"
#include "kernels/packed.h"
#include "ops/matrix.h"
#include "ops/rows.h"
#include "ops/weight.h"

namespace narrow::ops {

// Which forms of the rows some products need.
struct Forms {
  bool f32 = false;     // for weights that are not packed
  bool blocks = false;  // int8 with a scale per 32 values, for weights packed in their stored format
  bool tokens = false;  // int8 with a scale per row, for dense weights
  kernels::DenseInt8Scheme scheme;  // of tokens
  static Forms of(std::initializer_list<const Weight*> weights);
};

// Holds the forms asked for; memory grows to the largest rows seen and stays. Functions that take `m` rows
// run on all threads when that pays; each row is computed by itself, so results do not depend on m.
class Activations {
 public:
  Activations() = default;
  // fp32 only, for weights that are not packed.
  Activations(ConstMatrix x) : f32_(x), rows_(x.rows), cols_(x.cols) {}

  // The rows of x, which must stay valid as long as fp32 is used.
  void assign(ConstMatrix x, Forms forms);
  // RMS norm of x. `normed` [x.rows, x.cols] receives the fp32 rows when they are asked for.
  void assign_rms_norm(ConstMatrix x, const float* gain, float eps, Forms forms, Matrix normed);
  // gate = f(gate) * up (in place), or f(gate) when up has no data.
  void assign_activated(Activation f, Matrix gate, ConstMatrix up, Forms forms);

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  ConstMatrix f32() const { return f32_; }                          // data is null when absent
  const kernels::QuantizedRows& blocks() const { return blocks_; }  // q is null when absent
  const kernels::DenseInt8Rows& tokens() const { return tokens_; }  // q is null when absent

 private:
  void shape(std::int64_t rows, std::int64_t cols, Forms forms);
  void quantize_row(const float* x, std::int64_t r);  // into all int8 forms

  ConstMatrix f32_;
  kernels::QuantizedRows blocks_;
  kernels::DenseInt8Rows tokens_;
  kernels::DenseInt8Scheme scheme_;
  std::int64_t rows_ = 0, cols_ = 0;
  AlignedBuffer<std::int8_t> q_, token_q_;
  AlignedBuffer<float> scale_, token_scale_;
  AlignedBuffer<std::int32_t> sums_, token_zero_, token_sum_;
};

}  // namespace narrow::ops

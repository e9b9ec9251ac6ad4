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
  bool f32 = false;        // for weights that are not packed
  bool blocks = false;     // int8 with a scale per 32 values, for weights packed in their stored format
  bool tokens = false;     // int8 with a scale per row, for dense weights
  bool simulated = false;  // quantized with a scale per row and dequantized to fp32
  // Of tokens, of simulated rows and, with row_scale, of blocks, whose groups then share their row's scale.
  kernels::DenseInt8Scheme scheme;
  bool row_scale = false;
  // Columns that are 0 in all these forms and stay fp32 in outliers().
  const std::int32_t* outliers = nullptr;
  std::int64_t n_outliers = 0;
  // Weights that share an input have the same scheme and outliers.
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
  ConstMatrix simulated() const { return simulated_; }              // [rows, cols]; data is null when absent
  ConstMatrix outliers() const { return outliers_; }                // [rows, n_outliers], likewise

 private:
  void shape(std::int64_t rows, std::int64_t cols, Forms forms);
  // Into all forms but fp32.
  void quantize_row(const float* x, std::int64_t r);
  void quantize_blocks(const float* x, std::int64_t r);
  const float* take_outliers(const float* x, std::int64_t r);  // the row without them

  ConstMatrix f32_;
  kernels::QuantizedRows blocks_;
  kernels::DenseInt8Rows tokens_;
  Forms forms_;
  Matrix simulated_, outliers_;
  std::int64_t rows_ = 0, cols_ = 0;
  AlignedBuffer<std::int8_t> q_, token_q_;
  AlignedBuffer<float> scale_, token_scale_, simulated_values_, outlier_values_, masked_;
  AlignedBuffer<std::int32_t> sums_, token_zero_, token_sum_;
};

}  // namespace narrow::ops

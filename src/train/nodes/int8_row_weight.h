// A weight as int8 codes with one scale per output feature (docs/formats/int8.md, kernels/dense_int8.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/format.h"
#include "train/nodes/node.h"
#include "train/nodes/outlier_columns.h"

namespace narrow::train {

struct Int8RowOptions {
  bool learned = false;  // scales are parameters (LSQ), otherwise as given
  bool pass_clipped = false;
  bool scaled_gradient = true;  // LSQ's factor 1 / sqrt(k * 127)
  // Input columns that stay out of the integers, ascending, and the format of their weights (f32 or f16).
  std::vector<std::int32_t> outliers = {};
  Format outlier_format = Format::kF16;
};

// w = scale * code, code in -127 .. 127 nearest to w / scale. Scales have 12 significant bits: learned ones,
// "scale" [n] fp32, are rounded up to that with straight-through gradients, and count as at least 2^-100, so
// that they stay positive.
class Int8RowWeight : public WeightNode {
 public:
  // Starts from codes [n, k] and scales [n]. kInvalidArgument: sizes or columns that do not fit; kNumeric: a
  // scale that is negative or no finite number.
  static Result<std::shared_ptr<Int8RowWeight>> create(std::span<const std::int8_t> codes,
                                                       std::span<const float> scales, std::int64_t n,
                                                       std::int64_t k, const Int8RowOptions& options = {});

  at::Tensor apply(const at::Tensor& w) override;
  // Codes [n, k], those of outlier columns 0.
  Result<std::vector<std::byte>> encode(const at::Tensor& w) override;
  std::vector<NamedTensor> parameters() override;  // "scale" [n] if learned
  std::vector<NamedTensor> buffers() override;     // "scale" [n] if not
  std::string describe() const override;

  // What a file holds beside the codes: scales [n], and the outlier columns' weights [n, c], rounded to their
  // format.
  at::Tensor stored_scales() const;
  at::Tensor stored_outliers(const at::Tensor& w) const override;
  // Latent weights that apply() turns into the start's values, leaning to the reference [n, k] by at most
  // 0.49 of a step; outlier columns are the reference.
  at::Tensor start_latent(const at::Tensor& reference) const;
  // What the start's codes stand for, [n, k] fp32; 0 in outlier columns.
  at::Tensor start_values() const;

 private:
  Int8RowWeight(std::int64_t n, std::int64_t k, const Int8RowOptions& options);

  std::int64_t n_, k_;
  Int8RowOptions options_;
  at::Tensor start_;   // [n, k] int8
  at::Tensor scale_;   // [n]
  at::Tensor no_min_;  // [n] of 0
  KeptColumns outliers_;
};

}  // namespace narrow::train

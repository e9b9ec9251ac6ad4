// Cosines and sines of rotary positions for a range of positions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "ops/matrix.h"

namespace narrow::runtime {

// Angular step per position of each rotated pair: theta^(-2i / dims), changed by the scaling:
//   linear   divided by the factor (Chen et al. 2023, position interpolation)
//   yarn     interpolated by parts between beta_fast and beta_slow turns (Peng et al. 2023)
//   llama3   divided by per-frequency factors (rope.factors)
//   longrope divided by per-frequency factors (Ding et al. 2024): the long ones when n_ctx is above the
//   original
//            context, else the short ones
// local: of sliding layers with a theta of their own, which are never scaled.
// kCorrupt when factors do not number dims / 2 or a setting is out of range.
Result<std::vector<double>> rope_steps(const model::RopeConfig& rope, bool local, std::int64_t n_ctx);

class RopeTable {
 public:
  RopeTable() = default;
  // magnitude multiplies every cosine and sine.
  RopeTable(std::vector<double> steps, float magnitude) : steps_(std::move(steps)), magnitude_(magnitude) {}
  // One row for each of these positions.
  void fill(std::span<const std::int64_t> positions);
  ops::ConstMatrix cos() const { return {cos_.data(), rows_, static_cast<std::int64_t>(steps_.size())}; }
  ops::ConstMatrix sin() const { return {sin_.data(), rows_, static_cast<std::int64_t>(steps_.size())}; }

 private:
  std::vector<double> steps_;
  float magnitude_ = 1.0f;
  std::vector<float> cos_, sin_;
  std::int64_t rows_ = 0;
};

}  // namespace narrow::runtime

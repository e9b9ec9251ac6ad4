// Activations in int8, as the engine multiplies them: the values that ops::Activations makes of its rows, bit
// for bit.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/dense_int8.h"
#include "train/nodes/node.h"

namespace narrow::train {

enum class ActivationRange : std::uint8_t {
  kToken,     // a scale per row, from its own values (kernels/dense_int8.h, dynamic)
  kBlock,     // a scale per 32 neighbours, from their own values (kernels/packed.h)
  kFixed,     // one scale for all, as given
  kObserved,  // one scale for all, from a moving average of the smallest and largest value (Jacob et al.
              // 2018)
  kLearned,   // one scale (and zero point) for all, trained (LSQ+, Bhalgat et al. 2020)
};

struct ActivationOptions {
  ActivationRange range = ActivationRange::kToken;
  bool asymmetric = false;  // with a zero point; not for kBlock
  // Where kFixed, kObserved and kLearned start. 0 (not for kFixed): unknown; kObserved and kLearned then take
  // it from the first rows they see.
  float scale = 0.0f;
  std::int32_t zero = 0;
  std::vector<std::int32_t> outliers = {};  // columns that stay fp32, ascending; not for kBlock
  double momentum = 0.01;                   // kObserved: the share of the newest rows in the average
  bool scaled_gradient = true;              // kLearned: LSQ's factor 1 / sqrt(elements of a row * 127)
};

// x [.., k]; rows are tokens. Gradients pass unchanged, but for kFixed, kObserved and kLearned only where x
// is inside of the range that the codes reach (half a step past their ends). kLearned, S and Z the stored
// scale and zero point:
//   inside  dvalue/dS = round(x / S) - x / S, dvalue/dZ = 0
//   outside dvalue/dS = code - Z,             dvalue/dZ = -S
// Stored are S rounded up to 12 bits and Z rounded to a whole number, straight-through; "scale" [1] and
// "zero_point" [1] are fp32 parameters. S counts as at least 2^-100. kObserved: "range" [2] (smallest,
// largest) and "count" [1] are buffers. Phase::kObserve updates them; so does Phase::kOn where gradients are
// recorded, after use, so that a layer that is computed again for its gradients sees the same range.
class Int8Activation : public Node {
 public:
  // For rows of k. kInvalidArgument: options that do not go together; kUnsupported: rows too long for exact
  // sums.
  static Result<std::shared_ptr<Int8Activation>> create(std::int64_t k, const ActivationOptions& options);

  at::Tensor apply(const at::Tensor& x) override;
  std::vector<NamedTensor> parameters() override;
  std::vector<NamedTensor> buffers() override;
  std::string describe() const override;

  const ActivationOptions& options() const { return options_; }
  // What the engine is to do (kToken and the static ranges): a scale of 0 where none is known yet.
  kernels::DenseInt8Scheme scheme() const;

 private:
  Int8Activation(std::int64_t k, const ActivationOptions& options) : k_(k), options_(options) {}
  bool is_static() const { return options_.range >= ActivationRange::kFixed; }
  void observe(const at::Tensor& rows);  // [m, k] without outliers
  void start_from(const at::Tensor& rows);

  std::int64_t k_;
  ActivationOptions options_;
  at::Tensor scale_, zero_;   // [1] fp32: kFixed, kLearned
  at::Tensor range_, count_;  // kObserved: [2] fp32, [1] int64
  at::Tensor outliers_;       // [c] int64
};

}  // namespace narrow::train

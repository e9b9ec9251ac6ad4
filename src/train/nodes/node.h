// Fake-quantize nodes: what the target format does to a tensor, simulated in the forward pass, with
// straight-through gradients in the backward pass (Jacob et al. 2018; Bengio et al. 2013). The numbers are
// those of formats/ and kernels/, bit for bit: what is trained is what the converted file decodes to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/torch.h"

namespace narrow::train {

enum class Phase : std::uint8_t {
  kOff,      // x goes through unchanged
  kObserve,  // unchanged, and ranges are observed
  kOn,       // fake-quantized; observed ranges go on moving, learned ones have gradients
  kFrozen,   // fake-quantized with the ranges as they are
};

constexpr float kLeastScale =
    0x1p-100f;  // of learned and observed ranges: a scale of 0 would never move again

struct NamedTensor {
  std::string name;  // relative to the node: "scale", "zero_point", "min"
  at::Tensor tensor;
};

class Node {
 public:
  virtual ~Node() = default;
  // x as its quantized form gives it back; same shape and dtype. Differentiable in x and in parameters().
  virtual at::Tensor apply(const at::Tensor& x) = 0;
  // Learned ranges (LSQ, Esser et al. 2020; LSQ+, Bhalgat et al. 2020): leaf tensors that require gradients.
  virtual std::vector<NamedTensor> parameters() { return {}; }
  // Everything else that a checkpoint must hold: observed ranges, counts.
  virtual std::vector<NamedTensor> buffers() { return {}; }
  // What --print-graph says: "q4_0, learned scales", "int8 per token, dynamic".
  virtual std::string describe() const = 0;

  Phase phase() const { return phase_; }
  virtual void set_phase(Phase phase) { phase_ = phase; }

 private:
  Phase phase_ = Phase::kOn;
};

// A node on a weight, whose stored form is the training's result.
class WeightNode : public Node {
 public:
  // The stored bytes, rows [n] of the format's row_bytes(k), that decode to the very values that apply(w)
  // gives. w is [n, k], fp32. Parts that are stored beside the weight (int8's scale per row) are encoded by
  // parameters() and buffers() of the same names.
  virtual Result<std::vector<std::byte>> encode(const at::Tensor& w) = 0;
  // The weights [n, c] of input columns that the file keeps apart, as they are stored; undefined without any.
  virtual at::Tensor stored_outliers(const at::Tensor& /*w*/) const { return {}; }
};

}  // namespace narrow::train

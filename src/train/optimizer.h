// AdamW (Loshchilov & Hutter 2019), with torch.optim.AdamW's arithmetic, in one pass over memory: what a step
// of training on a CPU waits for is memory, and torch's own optimizer goes over every parameter a dozen
// times.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/nodes/node.h"
#include "train/torch.h"

namespace narrow::train {

// A tensor that is trained.
struct Parameter {
  std::string name;         // unique
  at::Tensor tensor;        // leaf, contiguous, f32 or bf16
  double lr_scale = 1;      // of the step's learning rate
  double weight_decay = 0;  // decoupled, times the learning rate
};

struct LearningRates {
  double weights = 1e-4;  // at the schedule's peak
  double scales = 1e-3;   // of weights' learned ranges, relative to their size
  double inputs = 2e-2;   // of activations' learned ranges, relative to their size
};

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  // bf16 parameters only: an fp32 copy is what is updated, and the parameter its rounding. Without it, steps
  // smaller than a bf16 rounding are lost.
  bool master_weights = true;
};

class AdamW {
 public:
  // kInvalidArgument names the parameter (or the option) that is at fault.
  static Result<AdamW> create(std::vector<Parameter> parameters, const AdamWOptions& options = {});

  // Root of the sum of squares of all gradients, in fp64 and in a fixed order: the same on any number of
  // threads. NaN or infinity where a gradient has one.
  double gradient_norm() const;
  // The first parameter with a gradient that is not finite, or "".
  std::string bad_gradient() const;

  // One update from the gradients as they are, times `gradient_scale`; they stay. Parameters without a
  // gradient are left alone (their moments too), as torch does.
  void step(double lr, double gradient_scale = 1);
  void zero_gradients();  // to undefined, so that the next backward pass stores instead of adding

  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::int64_t steps() const { return steps_; }

  // What a checkpoint must hold besides the parameters: "adamw.steps", and per parameter "adamw.m.<name>",
  // "adamw.v.<name>" and, where there is one, "adamw.master.<name>". Tensors share memory with the optimizer.
  std::vector<NamedTensor> state() const;
  // Copies it back. kCorrupt names what is missing or has another shape.
  Status load_state(const std::map<std::string, at::Tensor>& tensors);

 private:
  struct Moments {
    at::Tensor m, v, master;  // f32
    std::int64_t steps = 0;   // updates of this parameter
  };
  AdamW() = default;

  std::vector<Parameter> parameters_;
  std::vector<Moments> moments_;
  AdamWOptions options_;
  std::int64_t steps_ = 0;
};

// What torch.nn.utils.clip_grad_norm_ multiplies gradients with: at most 1; 1 for max_norm 0 (no clipping).
double clip_scale(double norm, double max_norm);

}  // namespace narrow::train

// The training loop: windows of tokens through the decoder, loss, gradients, one update per step.
// Fine-tuning, pretraining and quantization-aware training differ in the nodes that are attached and the
// weights that ask for gradients, not in here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "narrow/progress.h"
#include "train/dataset.h"
#include "train/decoder.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/teacher_cache.h"

namespace narrow::train {

// Processes that train the same model on different windows (distributed.h).
class Group {
 public:
  virtual ~Group() = default;
  // Each tensor becomes the sum of what all processes have; in the same order everywhere.
  virtual Status sum(std::span<const at::Tensor> tensors) = 0;
};

struct TrainerOptions {
  std::int64_t steps = 400;  // 0: as many as `max_seconds` allow
  // Ends the run about then; without `steps` the schedule is laid over what the first steps promise. 0: no
  // limit.
  double max_seconds = 0;
  BatchPlan batch;                 // windows of a step; rank and world are the process group's
  std::int64_t micro_windows = 2;  // of them in memory at a time
  LearningRates rates;
  double weight_decay = 0.0;  // of matrices
  double clip_norm = 1.0;     // of the whole gradient; 0: none
  double warmup_share = 0;    // of the steps, where their number is only known later
  Schedule schedule;          // its `steps` are this run's
  AdamWOptions adamw;
  // Only every n-th position's logits are compared, others in the next step: with large vocabularies they are
  // most of the work, and `hidden_weight` learns from all positions.
  std::int64_t logits_every = 1;
  LossOptions loss;  // logit_scale, softcap and rows are set by the trainer
  // Of the squared distance from the teacher's residual stream behind each layer, relative to its energy,
  // mean over layers and tokens (FitNets, Romero et al. 2014; TinyBERT, Jiao et al. 2019); a token's counts
  // for at most four times the median of its window's. Needs a teacher.
  double hidden_weight = 0;
  // Nodes observe without quantizing before `observe_steps`, and their ranges stop moving at `freeze_step`
  // (-1: never).
  std::int64_t observe_steps = 0, freeze_step = -1;
  std::int64_t validate_every = 0;  // steps; 0: at the end only
  std::int64_t validation_batch = 4;
  std::filesystem::path checkpoint;    // empty: none
  std::int64_t checkpoint_every = 50;  // steps
  bool resume = false;
  TeacherCache* teacher_cache = nullptr;  // the teacher speaks through it
  nlohmann::ordered_json recipe;  // what decides the result: a checkpoint of another recipe is refused
  std::filesystem::path metrics;  // JSON lines; empty: none
};

struct Validation {
  std::int64_t step = 0;  // updates done
  double kl = 0, ce = 0;  // means over the held-out windows' predictions; kl only with a teacher
};

struct StepMetrics {
  std::int64_t step = 0;
  double loss = 0, kl = 0, ce = 0, lr = 0, gradient_norm = 0;
  double hidden = 0;  // relative squared distance behind the layers
};

struct TrainerReport {
  std::vector<StepMetrics> steps;       // of this run; a resumed one has those of its predecessors too
  std::vector<Validation> validations;  // the first one before any update
  std::int64_t tokens = 0;              // of this process group, in this run
  double seconds = 0;                   // of training steps, in this run
};

// A fake-quantize node with the name it is known by: its weight's, or that of the first weight it feeds.
struct NamedNode {
  std::string name;
  std::shared_ptr<Node> node;
  bool activations = false;  // or weights
};

// All that requires gradients: weights, LoRAs, and the nodes' parameters ("<weight>.scale"), whose learning
// rate is that of scales or inputs times their own mean size.
std::vector<Parameter> trained_parameters(const Decoder& student, const LearningRates& rates,
                                          double weight_decay);

class Trainer {
 public:
  // Everything in `student` that requires gradients is trained: weights, LoRAs, nodes' parameters. `teacher`
  // may be null (no distillation). All must outlive the trainer. kInvalidArgument: nothing to train, or bad
  // options.
  static Result<std::unique_ptr<Trainer>> create(Decoder& student, Decoder* teacher, const Dataset& data,
                                                 const TrainerOptions& options, Group* group = nullptr);

  // kNumeric: the loss or a gradient is no number; says at which step it began and what is kept.
  // kCancelled keeps a checkpoint.
  Result<TrainerReport> run(ProgressSink& progress);

  // Mean loss over the held-out windows after `done` updates, without gradients. Leaves the nodes frozen.
  Result<Validation> validate(std::int64_t done);
  // Forward, backward and (in a group) the sum of gradients of one step, without an update.
  Result<StepMetrics> gradients(std::int64_t step);
  AdamW& optimizer() { return optimizer_; }

 private:
  Trainer(Decoder& student, Decoder* teacher, const Dataset& data, const TrainerOptions& options,
          AdamW optimizer, Group* group);
  struct Totals {
    double kl = 0, ce = 0, hidden = 0;
  };
  // One micro-batch; adds to gradients when they are enabled. `rows`: predictions of the whole step.
  Result<Totals> forward(const Batch& batch, double rows, std::int64_t step);
  Status share(Totals& totals);
  void set_steps(std::int64_t steps);
  Status plan_steps(std::int64_t done, double seconds_per_step, double left);
  void set_phase(std::int64_t step);
  bool distils() const { return options_.loss.kl_weight > 0; }
  Error diverged(const StepMetrics& m) const;
  std::vector<NamedTensor> state() const;
  Status save(std::int64_t step, const TrainerReport& report);
  Result<std::int64_t> load(TrainerReport& report);

  Decoder& student_;
  Decoder* teacher_;
  const Dataset& data_;
  TrainerOptions options_;
  AdamW optimizer_;
  Group* group_;
  std::vector<NamedNode> nodes_;  // each once
  std::int64_t saved_step_ = -1;
  bool planned_ = true;  // how many steps the run has
};

}  // namespace narrow::train

// Block-wise training (EfficientQAT's first phase, Chen et al. 2024): each layer alone is trained to give its
// full-precision output, so that one layer's gradients and optimizer state are in memory at a time.
#pragma once

#include "base/result.h"
#include "narrow/progress.h"
#include "train/dataset.h"
#include "train/decoder.h"
#include "train/optimizer.h"

namespace narrow::train {

struct BlockOptions {
  std::int64_t steps = 100;        // of each layer
  std::int64_t windows = 32;       // of the text, kept as activations [windows, n_ctx, n_embd] twice
  std::int64_t micro_windows = 2;  // of a step
  LearningRates rates;
  double clip_norm = 1.0;
  std::uint64_t seed = 0;
};

// What a layer learned: mean squared error over the mean square of its full-precision output's change.
struct BlockLoss {
  std::int64_t layer = 0;
  double before = 0, after = 0;
};

// In order of the layers; each takes the outputs of the trained ones before it. Weights of `student` that do
// not require gradients stay. kNumeric names the layer whose loss is no number. kCancelled.
Result<std::vector<BlockLoss>> train_blocks(Decoder& student, Decoder& teacher, const Dataset& data,
                                            const BlockOptions& options, ProgressSink& progress);

}  // namespace narrow::train

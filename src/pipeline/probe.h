// How far a model's next-token distributions move when some of its weights are others: spot runs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "calib/walk.h"
#include "eval/divergence.h"
#include "model/source.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

// For changes of single tensors. The model is run once, layer by layer, and what enters each layer is kept;
// then only layers from the changed one on are run again, in fp32. KL is over a sample of the vocabulary: at
// each position the kLikely likeliest tokens with their probability p, and for all the others together
// kSampled draws in proportion to p. With w the weights of the sample (their sum is 1) and d the change of
// the logits, KL = log sum w e^d - sum w d: what remains to be computed of the head are those rows.
class LayerProbe {
 public:
  static constexpr std::int64_t kLikely = 256, kSampled = 256;

  // Windows of at most kMaxWindow tokens; the last three quarters of each are scored. Memory: (n_layer + 1)
  // times tokens * n_embd floats. Errors as of calib::run_layer.
  static Result<LayerProbe> create(std::shared_ptr<const model::ModelSource> reference,
                                   calib::TokenWindows windows, ProgressSink& progress);

  // Mean KL(reference || changed) when nothing before layer `first` differs; n_layer: the head alone. With
  // `embedding` the change begins there.
  Result<double> measure(const std::shared_ptr<const model::ModelSource>& changed, std::int64_t first,
                         bool embedding, ProgressSink& progress);

  std::int64_t scored() const { return static_cast<std::int64_t>(positions_.size()); }

 private:
  // A position's sample.
  struct Position {
    std::int64_t row = 0;
    std::vector<std::int32_t> ids;
    std::vector<float> weights, logits;
  };
  Status sample(ProgressSink& progress);
  // Of `source`'s head, for the scored rows of the stream after the last layer.
  Status head_logits(const model::ModelSource& source, calib::Stream& stream,
                     std::vector<std::vector<float>>& out) const;

  std::shared_ptr<const model::ModelSource> reference_;
  calib::TokenWindows windows_;
  std::vector<calib::Stream> streams_;  // before each layer, and after the last
  std::vector<Position> positions_;
};

// For whole models, run as a user would run them: KL over the whole vocabulary, second half of each window
// scored.
class ModelProbe {
 public:
  // Runs the reference layer by layer and keeps what leaves the last one.
  static Result<ModelProbe> create(std::shared_ptr<const model::ModelSource> reference,
                                   calib::TokenWindows windows, ProgressSink& progress);
  Result<eval::MeanAndError> measure(const std::shared_ptr<const model::ModelSource>& model,
                                     ProgressSink& progress);

 private:
  std::shared_ptr<const model::ModelSource> reference_;
  calib::TokenWindows windows_;
  calib::Stream last_;
};

}  // namespace narrow::pipeline

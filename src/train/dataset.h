// Token documents -> the windows that a model trains on, and the batch of every step.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/torch.h"

namespace narrow::train {

// A text as token ids, without BOS.
struct Document {
  std::vector<std::int32_t> ids;
  // For each id, 1 where predicting it counts; empty: all do. Of chats, the assistant's tokens count.
  std::vector<std::uint8_t> counts;
};

struct DatasetOptions {
  std::int64_t n_ctx = 512;              // tokens of a window, BOS included
  std::int64_t n_vocab = 0;              // the model's; ids at or over it are an error
  std::optional<std::int32_t> bos;       // begins every window
  std::int64_t validation_windows = 16;  // held out, evenly spread; never trained on
  std::uint64_t seed = 0;                // of the order
};

struct Batch {
  at::Tensor tokens;  // [b, n_ctx] int64
  at::Tensor mask;    // [b, n_ctx] bool: at i, whether predicting token i + 1 counts; false at the end
  std::int64_t counted() const;  // predictions that count
};

// This process's share of a step's windows: rank r of `world` gets the r-th contiguous part.
struct BatchPlan {
  std::int64_t windows = 8;  // of all ranks together; a multiple of `world`
  std::int64_t rank = 0, world = 1;
};

// Documents are joined and cut into windows; what fills no window at the end is left out, and so are windows
// in which nothing counts.
class Dataset {
 public:
  // kInvalidArgument: options out of range, no token at all, or too few for one window besides those held
  // out; kCorrupt: an id that the model has not.
  static Result<Dataset> create(std::span<const Document> documents, const DatasetOptions& options);

  // kInvalidArgument: windows that cannot be shared out.
  static Status check(const BatchPlan& plan);

  // What this rank trains on at `step` (from 0): a pure function of the seed, the step and the plan. Windows
  // come in an order that is drawn anew for every pass over the text. One thread at a time.
  Batch batch(std::int64_t step, const BatchPlan& plan) const;
  // Held-out windows [first, first + n).
  Batch validation(std::int64_t first, std::int64_t n) const;

  std::int64_t n_ctx() const { return n_ctx_; }
  std::int64_t training_windows() const { return static_cast<std::int64_t>(training_.size()); }
  std::int64_t validation_windows() const { return static_cast<std::int64_t>(validation_.size()); }
  std::int64_t text_tokens() const { return text_tokens_; }        // of all documents
  std::int64_t dropped_tokens() const { return dropped_tokens_; }  // in no window
  // Passes over the training windows that `steps` steps make.
  double epochs(std::int64_t steps, const BatchPlan& plan) const;

 private:
  Dataset() = default;
  Batch gather(std::span<const std::int64_t> windows) const;
  std::int64_t training_window(std::int64_t place) const;  // the place-th of all epochs in a row

  std::int64_t n_ctx_ = 0, text_tokens_ = 0, dropped_tokens_ = 0;
  std::uint64_t seed_ = 0;
  std::vector<std::int32_t> tokens_;                 // [windows, n_ctx]
  std::vector<std::uint8_t> counts_;                 // the same, for predicting the token itself
  std::vector<std::int64_t> training_, validation_;  // windows
  mutable std::int64_t epoch_ = -1;                  // whose order order_ holds
  mutable std::vector<std::int64_t> order_;
};

}  // namespace narrow::train

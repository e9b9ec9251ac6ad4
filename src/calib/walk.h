// A model run layer by layer over all calibration tokens at once: only one layer's weights are needed at a
// time, and what is between the layers is kept.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "ops/matrix.h"
#include "runtime/session.h"
#include "runtime/taps.h"

namespace narrow::calib {

// Token windows that do not see each other, one after the other.
struct TokenWindows {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> lengths;  // of each window, at most kMaxWindow; their sum is tokens.size()
  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  // One more window: `n` tokens of `from`, from token `begin` on.
  void add(const TokenWindows& from, std::int64_t begin, std::int64_t n) {
    tokens.insert(tokens.end(), from.tokens.begin() + begin, from.tokens.begin() + begin + n);
    lengths.push_back(n);
  }
};
inline constexpr std::int64_t kMaxWindow = 512;

// The residual stream [tokens, n_embd] of all windows.
class Stream {
 public:
  Stream() = default;
  Stream(std::int64_t rows, std::int64_t width)
      : x_(static_cast<std::size_t>(rows * width)), rows_(rows), width_(width) {}
  ops::Matrix rows(std::int64_t begin, std::int64_t n) { return {x_.data() + begin * width_, n, width_}; }
  ops::Matrix all() { return rows(0, rows_); }
  std::int64_t size() const { return rows_; }
  std::int64_t width() const { return width_; }
  Stream copy() const;

 private:
  AlignedBuffer<float> x_;
  std::int64_t rows_ = 0, width_ = 0;
};

// Products are fp32 of the decoded weights unless `compute` says otherwise. Windows go through together in
// runs of at most kMaxWindow tokens. Errors as of LoadedModel::load and the runs.

// The embedded tokens.
Result<Stream> embed(const std::shared_ptr<const model::ModelSource>& source, const TokenWindows& windows);

// Consecutive windows that go through together.
struct WalkStep {
  std::size_t first = 0, count = 0;    // windows
  std::int64_t begin = 0, tokens = 0;  // rows of a Stream
};

// One layer, piece by piece: two streams can be led through two versions of it side by side.
class LayerRun {
 public:
  static Result<LayerRun> create(const std::shared_ptr<const model::ModelSource>& source, std::int64_t layer,
                                 const TokenWindows& windows,
                                 runtime::Compute compute = runtime::Compute::kFloat);
  LayerRun(LayerRun&&) noexcept;
  LayerRun& operator=(LayerRun&&) noexcept;
  ~LayerRun();
  const std::vector<WalkStep>& steps() const;
  // x [step.tokens, n_embd] from before the layer, or its half, to after it. `taps` may be null.
  Status run(const WalkStep& step, ops::Matrix x, runtime::TapSink* taps,
             runtime::Half half = runtime::Half::kBoth);

 private:
  struct Impl;
  explicit LayerRun(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct WalkOptions {
  runtime::Compute compute = runtime::Compute::kFloat;
  std::size_t every = 1;  // step that is taken; the others' rows stay as they are
  runtime::Half half = runtime::Half::kBoth;
};

// One layer over all windows: from `in` to `out`, which may be the same, or null where only the taps are of
// interest. `progress` is asked for cancellation between steps.
Status run_layer(const std::shared_ptr<const model::ModelSource>& source, std::int64_t layer,
                 const TokenWindows& windows, Stream& in, Stream* out, runtime::TapSink* taps,
                 ProgressSink& progress, const WalkOptions& options = {});

}  // namespace narrow::calib

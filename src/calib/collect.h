// Statistics of every matrix of a model, and whether statistics from elsewhere fit one.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "calib/stats.h"
#include "calib/walk.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "runtime/taps.h"

namespace narrow::calib {

// Statistics of what entered the products of one layer.
class LayerObserver final : public runtime::TapSink {
 public:
  explicit LayerObserver(const model::ModelConfig& config, bool with_gram = false);
  // `layer` is ignored: one observer for each.
  Status take(std::int64_t layer, runtime::Tap tap, std::int64_t expert, ops::ConstMatrix x) override;
  // One entry, or one per expert; without rows where nothing was seen.
  const std::vector<InputStats>& at(runtime::Tap tap) const { return taps_[static_cast<std::size_t>(tap)]; }

 private:
  std::array<std::vector<InputStats>, static_cast<std::size_t>(runtime::Tap::kHead) + 1> taps_;
  bool with_gram_;
};

// Indices of the matrices that take part in products and may be quantized: those of the layers, and the head
// (the embedding where it is tied).
std::vector<std::size_t> calibrated_tensors(const model::ModelSource& source);

// What enters the head: out [m, n_embd] = the final norm of x, the residual stream after the last layer.
// kNotFound names the norm's tensor.
Status head_input(const model::ModelSource& source, ops::ConstMatrix x, ops::Matrix out);

// Statistics of all calibrated_tensors() over the windows, without Hessians, with one layer's weights in
// memory at a time. Findings go to progress.note(). kNumeric: not one row was finite.
Result<ModelStats> collect(const std::shared_ptr<const model::ModelSource>& source,
                           const TokenWindows& windows, ProgressSink& progress);

// Whether statistics of the file `name` are of this model; before any long work. Entries for all experts
// together are split. What works with a neutral treatment (matrices without statistics, counts of 0, zeros)
// goes to progress.note(); kInvalidArgument names what cannot be of this model: no name in common, another
// number of inputs or experts, a layer too many.
Status check_stats(ModelStats& stats, const model::ModelSource& source, const std::string& name,
                   ProgressSink& progress);

}  // namespace narrow::calib

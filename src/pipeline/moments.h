// Second moments of what enters a layer's products, in the model as it becomes and in the model as it was.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "calib/walk.h"
#include "runtime/taps.h"

namespace narrow::pipeline {

// A tap, and the expert (-1 outside experts).
using TapKey = std::pair<runtime::Tap, std::int64_t>;

// Sums over tokens, means after finish(). x_q: rows in the quantized model; x_o: the same tokens' rows in the
// original. Empty where nothing was seen.
struct Moments {
  std::int64_t k = 0;
  std::int64_t tokens = 0, matched_tokens = 0, held_out_tokens = 0;
  AlignedBuffer<float> q;                       // [k, k] x_q x_q^T
  AlignedBuffer<float> difference;              // [k, k] (x_o - x_q) x_q^T of the matched tokens
  std::vector<double> mean_q, mean_difference;  // [k]: x_q, and x_o - x_q of the matched tokens
  AlignedBuffer<float> held_out;  // [k, k] x_q x_q^T of windows that are kept to judge by; empty without

  void finish();
  std::vector<float> diagonal() const;  // [k] E[x_q^2]
  std::span<const float> hessian() const { return q.span(); }
};

inline constexpr std::int64_t kExpertPrior = 64;

// Inputs of a layer; empty: all of them.
using Taps = std::vector<runtime::Tap>;
inline bool among(const Taps& taps, runtime::Tap tap) {
  return taps.empty() || std::find(taps.begin(), taps.end(), tap) != taps.end();
}

struct MomentOptions {
  // In every n-th step the tokens are matched with the original's; 0: in none.
  std::size_t match_every = 0;
  // What is run, and whether a stream moves on to behind it (`quantized` by the overlay's weights as they are
  // now, `original` in matched steps) or stays before it.
  runtime::Half half = runtime::Half::kBoth;
  bool move_original = false, move_quantized = false;
  // Every n-th window is kept apart to judge by; 0: none.
  std::int64_t held_out_every = 0;
  Taps taps;  // what to collect
};

// Leads both streams through layer `layer`, `original` through `source`'s and `quantized` through `overlay`'s
// weights, multiplied as inference multiplies them, and collects. Tokens of extraordinary energy are scaled
// down. An expert that few tokens chose is counted as if it had also seen kExpertPrior tokens of the experts'
// mean.
Result<std::map<TapKey, Moments>> collect_moments(const std::shared_ptr<const model::ModelSource>& source,
                                                  const std::shared_ptr<const model::ModelSource>& overlay,
                                                  std::int64_t layer, const calib::TokenWindows& windows,
                                                  calib::Stream& original, calib::Stream& quantized,
                                                  const MomentOptions& options, ProgressSink& progress);

}  // namespace narrow::pipeline

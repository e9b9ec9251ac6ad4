// What calibration decides about the inputs of a model's products before they become int8.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "calib/walk.h"
#include "model/source.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

struct Int8Input {
  std::vector<std::int32_t> outliers;  // columns, ascending
  float scale = 0;                     // static; 0: dynamic
  std::vector<float> mean_square;      // [k] E[x^2]; empty where nothing was seen
};

struct Int8InputOptions {
  // At most so many columns; -1: up to a 32nd of the inputs while they pay, with static scales a 16th, an 8th
  // of those of ffn_down.
  std::int64_t outliers = -1;
  bool static_scales = false;
};

// By the stem of every matrix that takes part in products ("blk.0.attn_q"; "output" for the head, tied or
// not). Matrices that share an input share the result. One layer's weights in memory at a time.
Result<std::map<std::string, Int8Input>> choose_int8_inputs(
    const std::shared_ptr<const model::ModelSource>& source, const calib::TokenWindows& windows,
    const Int8InputOptions& options, ProgressSink& progress);

// Windows of random tokens, for models that are quantized without a text: outlier channels are the model's
// own.
calib::TokenWindows random_windows(const model::ModelSource& source, std::uint64_t seed);

}  // namespace narrow::pipeline

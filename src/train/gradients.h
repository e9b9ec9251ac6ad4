// Gradients of the model's own loss by what enters its residual stream, to quantize by
// (calib/output_gradients.h).
#pragma once

#include <cstdint>

#include "base/result.h"
#include "calib/output_gradients.h"
#include "calib/walk.h"
#include "narrow/progress.h"
#include "train/decoder.h"

namespace narrow::train {

// The targets are drawn from the model's own answers, so that g g^T is, on average, the curvature of the KL
// divergence from the model as it is (the Fisher information); one backward pass a window. No token counts
// for more than kMostGradient times a window's median one, and a window's first token, to which all others
// attend, as much as a quarter of the window: a few tokens would drown all others. kNumeric: a loss that is
// not finite. kCancelled.
inline constexpr double kMostGradient = 4.0, kFirstGradient = 0.25;
Result<calib::OutputGradients> output_gradients(Decoder& model, const calib::TokenWindows& windows,
                                                std::uint64_t seed, ProgressSink& progress);

}  // namespace narrow::train

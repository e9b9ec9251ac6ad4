#include "runtime/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace narrow::runtime {
namespace {

using model::RopeConfig;
using model::RopeScaling;

// The (fractional) pair that turns `turns` times within the original context.
double yarn_pair(const RopeConfig& rope, double turns) {
  return rope.dims * std::log(rope.original_context / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(static_cast<double>(rope.theta)));
}

void scale_yarn(const RopeConfig& rope, std::vector<double>& steps) {
  const double low = std::max(0.0, std::floor(yarn_pair(rope, rope.beta_fast)));
  double high = std::min(rope.dims - 1.0, std::ceil(yarn_pair(rope, rope.beta_slow)));
  if (high <= low) high = low + 0.001;  // as the reference implementation keeps the ramp finite
  for (std::size_t i = 0; i < steps.size(); ++i) {
    // 0: a fast pair that stays as trained, 1: a slow one that is interpolated.
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    steps[i] = steps[i] * (1.0 - ramp) + steps[i] / rope.factor * ramp;
  }
}

Status divide(const std::vector<float>& factors, std::string_view name, std::vector<double>& steps) {
  if (factors.size() != steps.size()) {
    return make_error(ErrorCode::kCorrupt, "rope: {} {} factors for {} rotated pairs", factors.size(), name,
                      steps.size());
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (!(factors[i] > 0.0f)) {
      return make_error(ErrorCode::kCorrupt, "rope: {} factor {} is {}, but must be positive", name, i,
                        factors[i]);
    }
    steps[i] /= factors[i];
  }
  return {};
}

}  // namespace

Result<std::vector<double>> rope_steps(const RopeConfig& rope, bool local, std::int64_t n_ctx) {
  const double theta = local ? rope.theta_local : rope.theta;
  if (rope.dims < 2 || rope.dims % 2 != 0 || !(theta > 1.0)) {
    return make_error(ErrorCode::kCorrupt,
                      "rope: {} dimensions with theta {}; an even number and theta > 1 needed", rope.dims,
                      theta);
  }
  std::vector<double> steps(static_cast<std::size_t>(rope.dims / 2));
  for (std::size_t i = 0; i < steps.size(); ++i) {
    steps[i] = std::pow(theta, -2.0 * static_cast<double>(i) / rope.dims);
  }
  if (local) return steps;
  const bool scaled_by_factor = rope.scaling == RopeScaling::kLinear || rope.scaling == RopeScaling::kYarn;
  if (scaled_by_factor && !(rope.factor > 0.0f)) {
    return make_error(ErrorCode::kCorrupt, "rope: scaling factor {} must be positive", rope.factor);
  }
  switch (rope.scaling) {
    case RopeScaling::kNone:
      // GGUF files of llama3 models carry the factors and no scaling type.
      if (!rope.factors.empty()) NARROW_TRY(divide(rope.factors, "per-frequency", steps));
      break;
    case RopeScaling::kLinear:
      for (double& s : steps) s /= rope.factor;
      break;
    case RopeScaling::kYarn:
      if (rope.original_context <= 0) {
        return make_error(ErrorCode::kCorrupt, "rope: yarn scaling needs the original context length, not {}",
                          rope.original_context);
      }
      scale_yarn(rope, steps);
      break;
    case RopeScaling::kLlama3:
      NARROW_TRY(divide(rope.factors, "llama3", steps));
      break;
    case RopeScaling::kLongRope:
      if (n_ctx > rope.original_context) {
        NARROW_TRY(divide(rope.factors_long, "longrope long", steps));
      } else {
        NARROW_TRY(divide(rope.factors_short, "longrope short", steps));
      }
      break;
  }
  return steps;
}

void RopeTable::fill(std::span<const std::int64_t> positions) {
  const std::size_t pairs = steps_.size();
  cos_.resize(positions.size() * pairs);
  sin_.resize(cos_.size());
  rows_ = static_cast<std::int64_t>(positions.size());
  for (std::size_t r = 0; r < positions.size(); ++r) {
    for (std::size_t i = 0; i < pairs; ++i) {
      const double angle = static_cast<double>(positions[r]) * steps_[i];
      cos_[r * pairs + i] = static_cast<float>(std::cos(angle)) * magnitude_;
      sin_[r * pairs + i] = static_cast<float>(std::sin(angle)) * magnitude_;
    }
  }
}

}  // namespace narrow::runtime

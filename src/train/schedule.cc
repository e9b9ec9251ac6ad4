#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace narrow::train {
namespace {

struct Row {
  std::string_view name;
  Decay decay;
};
constexpr Row kRows[] = {
    {"constant", Decay::kConstant}, {"linear", Decay::kLinear}, {"cosine", Decay::kCosine}};

}  // namespace

std::optional<Decay> decay_named(std::string_view name) {
  for (const Row& r : kRows) {
    if (r.name == name) return r.decay;
  }
  return std::nullopt;
}

std::string_view name_of(Decay decay) {
  for (const Row& r : kRows) {
    if (r.decay == decay) return r.name;
  }
  return "?";
}

double Schedule::factor(std::int64_t step) const {
  if (step < warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(warmup_steps + 1);
  if (decay == Decay::kConstant) return 1;
  // The step after the rise is at the peak, the last one at the floor.
  const std::int64_t span = steps - 1 - warmup_steps;
  const double p =
      span <= 0 ? 0
                : std::clamp(static_cast<double>(step - warmup_steps) / static_cast<double>(span), 0.0, 1.0);
  const double share = decay == Decay::kLinear ? 1 - p : 0.5 * (1 + std::cos(std::numbers::pi * p));
  return floor + (1 - floor) * share;
}

}  // namespace narrow::train

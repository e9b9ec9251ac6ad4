// The learning rate over a run, as a share of its peak.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace narrow::train {

enum class Decay : std::uint8_t { kConstant, kLinear, kCosine };

std::optional<Decay> decay_named(std::string_view name);  // "constant", "linear", "cosine"
std::string_view name_of(Decay decay);

// A linear rise over the first steps, then a fall to `floor` at the last one (cosine: Loshchilov & Hutter
// 2017).
struct Schedule {
  Decay decay = Decay::kCosine;
  std::int64_t warmup_steps = 0;
  std::int64_t steps = 0;  // of the run
  double floor = 0.1;      // share of the peak at the end; not of kConstant

  // In (0, 1], for steps 0 to steps - 1 (later ones: as the last). A pure function: a resumed run goes on as
  // if it had never stopped.
  double factor(std::int64_t step) const;
};

}  // namespace narrow::train

// The order in which every instruction set adds up a row.
#pragma once

#include <cstdint>

namespace narrow::kernels::generic {

// Element i of a row goes to lane i % 64, and the lanes are added by halves.
class Lanes {
 public:
  float& of(std::int64_t i) { return lane_[i % kCount]; }

  // Uses the lanes up.
  float sum() {
    for (std::int64_t half = kCount / 2; half > 0; half /= 2) {
      for (std::int64_t l = 0; l < half; ++l) lane_[l] += lane_[l + half];
    }
    return lane_[0];
  }

 private:
  static constexpr std::int64_t kCount = 64;
  float lane_[kCount] = {};
};

}  // namespace narrow::kernels::generic

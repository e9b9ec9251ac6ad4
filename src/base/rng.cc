#include "base/rng.h"

#include <cmath>
#include <numbers>

namespace narrow {

float Rng::normal() {
  const double u = 1.0 - next_double();  // (0, 1]
  const double v = next_double();
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

}  // namespace narrow

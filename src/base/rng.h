// A small seeded generator with the same numbers on every machine (splitmix64, Steele et al. 2014).
#pragma once

#include <cstdint>

namespace narrow {

class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next_u64() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // Uniform in [0, 1), 53 random bits.
  double next_double() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }
  float uniform(float lo, float hi) { return lo + (hi - lo) * static_cast<float>(next_double()); }
  float normal();  // mean 0, variance 1 (Box-Muller)

 private:
  std::uint64_t state_;
};

}  // namespace narrow

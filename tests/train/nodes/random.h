// Tensors for tests of nodes.
#pragma once

#include <cstring>

#include "base/rng.h"
#include "train/torch.h"

namespace narrow::testing {

// fp32 [n, k] of offset + scale * a normal distribution.
inline at::Tensor random(std::int64_t n, std::int64_t k, std::uint64_t seed, float scale = 1,
                         float offset = 0) {
  Rng rng(seed);
  at::Tensor x = at::empty({n, k}, at::kFloat);
  for (std::int64_t i = 0; i < n * k; ++i) x.data_ptr<float>()[i] = offset + scale * rng.normal();
  return x;
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

}  // namespace narrow::testing

// Keys and values of all positions of one sequence, fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "ops/attention.h"
#include "ops/matrix.h"

namespace narrow::runtime {

// Per layer [n_head_kv, capacity, head_dim] for keys and the same for values: a head's positions lie
// together, so that attention reads straight on. Memory is reserved at once but used only as positions are
// filled.
class KvCache {
 public:
  // Throws std::bad_alloc.
  KvCache(std::int64_t n_layer, std::int64_t n_head_kv, std::int64_t head_dim, std::int64_t capacity);

  // Stores rows [m, n_head_kv * head_dim] as positions first .. first + m - 1 (within the capacity).
  void store(std::int64_t layer, std::int64_t first, ops::ConstMatrix keys, ops::ConstMatrix values);
  ops::CacheView keys(std::int64_t layer) const { return view(layer, 0); }
  ops::CacheView values(std::int64_t layer) const { return view(layer, 1); }

  std::int64_t capacity() const { return capacity_; }
  std::uint64_t bytes() const;

 private:
  ops::CacheView view(std::int64_t layer, int which) const;
  std::int64_t n_head_kv_, head_dim_, capacity_;
  std::vector<AlignedBuffer<float>> layers_;
};

}  // namespace narrow::runtime

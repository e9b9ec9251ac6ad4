#include "runtime/kv_cache/kv_cache.h"

#include <algorithm>

namespace narrow::runtime {

KvCache::KvCache(std::int64_t n_layer, std::int64_t n_head_kv, std::int64_t head_dim, std::int64_t capacity)
    : n_head_kv_(n_head_kv),
      head_dim_(head_dim),
      capacity_(capacity),
      layers_(static_cast<std::size_t>(n_layer)) {
  for (AlignedBuffer<float>& layer : layers_) {
    layer.resize(static_cast<std::size_t>(2 * n_head_kv * capacity * head_dim));
  }
}

ops::CacheView KvCache::view(std::int64_t layer, int which) const {
  const std::int64_t head_stride = capacity_ * head_dim_;
  return {layers_[static_cast<std::size_t>(layer)].data() + which * n_head_kv_ * head_stride, head_stride};
}

void KvCache::store(std::int64_t layer, std::int64_t first, ops::ConstMatrix keys, ops::ConstMatrix values) {
  float* base = layers_[static_cast<std::size_t>(layer)].data();
  const std::int64_t head_stride = capacity_ * head_dim_;
  const auto copy = [&](ops::ConstMatrix rows, float* to) {
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      for (std::int64_t h = 0; h < n_head_kv_; ++h) {
        const float* from = rows.row(r) + h * head_dim_;
        std::copy(from, from + head_dim_, to + h * head_stride + (first + r) * head_dim_);
      }
    }
  };
  copy(keys, base);
  copy(values, base + n_head_kv_ * head_stride);
}

std::uint64_t KvCache::bytes() const {
  std::uint64_t total = 0;
  for (const AlignedBuffer<float>& layer : layers_) total += layer.size() * sizeof(float);
  return total;
}

}  // namespace narrow::runtime

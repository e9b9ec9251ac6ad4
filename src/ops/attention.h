// Causal attention of new tokens over cached keys and values.
#pragma once

#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::ops {

// Keys or values of one layer: head h's position p is `head_dim` floats at data + h * head_stride + p *
// head_dim.
struct CacheView {
  const float* data = nullptr;
  std::int64_t head_stride = 0;
};

struct AttentionSpec {
  std::int64_t n_head = 0, n_head_kv = 0, head_dim = 0;  // n_head is a multiple of n_head_kv
  float scale = 1.0f;                                    // of q.k
  float softcap = 0.0f;                                  // 0: none
  std::int64_t window = 0;  // position p sees p - window + 1 .. p; 0: all up to p
};

// out[r, head] = softmax(cap(scale * q[r, head] . K)) V for rows r at positions first + r; keys and values of
// these positions are already in the cache. q and out are [m, n_head * head_dim]. Query heads share key heads
// in consecutive groups (Ainslie et al. 2023, GQA). Works on blocks of one head's queries, one item per
// block: each thread holds the scores of one block, kAttentionBlock * (first + m) floats at most.
Status attention(const AttentionSpec& spec, ConstMatrix q, CacheView keys, CacheView values,
                 std::int64_t first, Matrix out);

inline constexpr std::int64_t kAttentionBlock = 32;

}  // namespace narrow::ops

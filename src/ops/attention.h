// Causal attention of new tokens over cached keys and values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "kernels/attention.h"
#include "ops/matrix.h"

namespace narrow::ops {

struct AttentionSpec {
  std::int64_t n_head = 0, n_head_kv = 0, head_dim = 0;  // n_head is a multiple of n_head_kv
  float scale = 1.0f;                                    // of q.k
  float softcap = 0.0f;                                  // 0: none
  std::int64_t window = 0;  // position p sees p - window + 1 .. p; 0: all up to p
};

// The first position that a token at `position` sees.
inline std::int64_t first_seen(std::int64_t position, std::int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// One layer in a page of the cache: its key heads one after the other, each laid out as kernels/attention.h
// says.
struct CacheLayout {
  kernels::HeadLayout head;
  std::int64_t n_head_kv = 0;

  // Errors as of kernels::head_layout. rotate_keys stores keys after a Walsh-Hadamard transform, which
  // spreads outliers over the head; attention transforms queries alike, so that q.k stays the same.
  static Result<CacheLayout> make(Format keys, Format values, std::int64_t n_head_kv, std::int64_t head_dim,
                                  bool rotate_keys);
  std::size_t layer_bytes() const { return static_cast<std::size_t>(n_head_kv) * head.bytes; }
};

// Rows of a batch that belong to one sequence, in order of position.
struct AttentionRun {
  std::int64_t row_begin = 0, rows = 0;
  std::int64_t first = 0;  // position of row row_begin
  // By position / kernels::kPagePositions, up to the last row's. Pages that no row sees may be null.
  std::span<std::byte* const> pages;
  std::size_t layer_offset = 0;  // bytes from a page's start to this layer
};

// out[r, head] = softmax(cap(scale * q[r, head] . K)) V for the rows of all runs, whose keys and values are
// stored already; other rows are left alone. q and out are [m, n_head * head_dim]. Query heads share key
// heads in consecutive groups (Ainslie et al. 2023, GQA). Work is cut by shapes and positions alone: a run's
// result has the same bits for any number of threads and whatever else is in the batch.
// kInvalidArgument names shapes that do not fit.
Status attention(const AttentionSpec& spec, const CacheLayout& layout, ConstMatrix q,
                 std::span<const AttentionRun> runs, Matrix out);

// Stores rows [run.row_begin, + run.rows) of keys and values [m, n_head_kv * head_dim] at run.first and on.
// The pages must be this sequence's alone.
void store_cache(const CacheLayout& layout, ConstMatrix keys, ConstMatrix values, const AttentionRun& run);

}  // namespace narrow::ops

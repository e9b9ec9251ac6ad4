#include "ops/attention.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <optional>

#include "base/thread_team.h"
#include "kernels/dispatch.h"
#include "ops/gemm.h"
#include "ops/scratch.h"

namespace narrow::ops {
namespace {

// Multiply-adds below which handing out the blocks costs more than computing them.
constexpr std::int64_t kSerialWork = 256 * 1024;

// Queries of one head, and the cached positions that any of them sees.
struct Block {
  const float* q;  // first query, rows q_stride apart
  float* out;
  std::int64_t q_stride, out_stride, rows;
  const float *keys, *values;  // of position key_begin on
  std::int64_t first;          // position of the first query
  std::int64_t key_begin, key_count;
};

// Turns one query's scaled scores into probabilities over the positions that it sees; the others become 0.
void normalise_scores(const AttentionSpec& spec, const Block& b, std::int64_t row, float* scores) {
  const kernels::KernelTable& kt = kernels::kernels();
  const std::int64_t position = b.first + row;
  const std::int64_t begin =
      spec.window > 0 ? std::max<std::int64_t>(0, position - spec.window + 1 - b.key_begin) : 0;
  const std::int64_t end = position + 1 - b.key_begin;
  std::fill(scores, scores + begin, 0.0f);
  std::fill(scores + end, scores + b.key_count, 0.0f);
  if (spec.softcap != 0.0f) kt.softcap(scores + begin, spec.softcap, end - begin);
  kt.softmax(scores + begin, end - begin);
}

void one_query(const AttentionSpec& spec, const Block& b, float* scores) {
  const kernels::KernelTable& kt = kernels::kernels();
  const std::int64_t d = spec.head_dim;
  for (std::int64_t p = 0; p < b.key_count; ++p) scores[p] = spec.scale * kt.dot_f32(b.q, b.keys + p * d, d);
  normalise_scores(spec, b, 0, scores);
  std::fill(b.out, b.out + d, 0.0f);
  for (std::int64_t p = 0; p < b.key_count; ++p) kt.axpy_f32(scores[p], b.values + p * d, b.out, d);
}

Status many_queries(const AttentionSpec& spec, const Block& b, float* scores) {
  const std::int64_t d = spec.head_dim;
  NARROW_TRY(gemm_f32_single(true, b.rows, b.key_count, d, spec.scale, b.q, b.q_stride, b.keys, d, scores,
                             b.key_count));
  for (std::int64_t r = 0; r < b.rows; ++r) normalise_scores(spec, b, r, scores + r * b.key_count);
  return gemm_f32_single(false, b.rows, d, b.key_count, 1.0f, scores, b.key_count, b.values, d, b.out,
                         b.out_stride);
}

}  // namespace

Status attention(const AttentionSpec& spec, ConstMatrix q, CacheView keys, CacheView values,
                 std::int64_t first, Matrix out) {
  if (spec.n_head <= 0 || spec.n_head_kv <= 0 || spec.n_head % spec.n_head_kv != 0 ||
      q.cols != spec.n_head * spec.head_dim || out.cols != q.cols || out.rows != q.rows) {
    return make_error(ErrorCode::kInvalidArgument,
                      "attention: q {} and output {} do not fit {} heads of {} over {} key heads",
                      q.shape().text(), out.shape().text(), spec.n_head, spec.head_dim, spec.n_head_kv);
  }
  const std::int64_t m = q.rows, d = spec.head_dim;
  const std::int64_t group = spec.n_head / spec.n_head_kv;
  const std::int64_t blocks = (m + kAttentionBlock - 1) / kAttentionBlock;

  thread_local Scratch scratch;
  scratch.prepare(static_cast<std::size_t>(std::min(m, kAttentionBlock) * (first + m)));
  Scratch& memory = scratch;  // of the calling thread, also inside the region

  std::mutex mutex;
  std::optional<Error> failure;
  // The last blocks see most keys: they go first, so that no thread is left with a long one at the end.
  const auto compute = [&](std::int64_t item, int thread) {
    const std::int64_t head = item % spec.n_head;
    const std::int64_t begin = (blocks - 1 - item / spec.n_head) * kAttentionBlock;
    Block b;
    b.rows = std::min(kAttentionBlock, m - begin);
    b.q_stride = q.stride;
    b.out_stride = out.stride;
    b.q = q.row(begin) + head * d;
    b.out = out.row(begin) + head * d;
    b.first = first + begin;
    b.key_begin = spec.window > 0 ? std::max<std::int64_t>(0, b.first - spec.window + 1) : 0;
    b.key_count = b.first + b.rows - b.key_begin;
    b.keys = keys.data + head / group * keys.head_stride + b.key_begin * d;
    b.values = values.data + head / group * values.head_stride + b.key_begin * d;
    if (b.rows == 1) {
      one_query(spec, b, memory.of(thread));
      return;
    }
    const Status status = many_queries(spec, b, memory.of(thread));
    if (status.ok()) return;
    const std::lock_guard lock(mutex);
    failure = status.error();
  };
  const std::int64_t items = spec.n_head * blocks;
  if (m * (first + m) * q.cols <= kSerialWork) {
    for (std::int64_t item = 0; item < items; ++item) compute(item, 0);
  } else {
    parallel_for(items, compute);
  }
  if (failure) return *failure;
  return {};
}

}  // namespace narrow::ops

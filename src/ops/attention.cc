#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"
#include "kernels/dispatch.h"
#include "ops/scratch.h"

namespace narrow::ops {
namespace {

using kernels::kPagePositions;

// Multiply-adds below which handing out the items costs more than computing them.
constexpr std::int64_t kSerialWork = 32 * 1024;
// Query rows of an item: enough that making a page into floats (two operations per element) is little beside
// its use (two multiply-adds per element and row).
constexpr std::int64_t kItemRows = 96;
// Positions of an item of a run that is too short for several blocks of queries: at 16 GB/s a few
// microseconds, many times what it costs to hand out and merge. A multiple of the page.
constexpr std::int64_t kItemPositions = 256;
// Values of a batch from which storing is shared out.
constexpr std::int64_t kSerialStore = 16 * 1024;

struct Item {
  const AttentionRun* run;
  std::int64_t kv_head;
  std::int64_t row, rows;     // tokens of the run
  std::int64_t begin, end;    // positions
  std::int64_t partial = -1;  // index of the partial result, -1: complete in itself
  std::int64_t cost() const { return rows * (end - begin); }
};

// Of one run and key head: partial results to be merged.
struct Merge {
  const AttentionRun* run;
  std::int64_t kv_head, begin, count;
};

struct Plan {
  std::vector<Item> items;
  std::vector<Merge> merges;
  std::int64_t partials = 0, most_rows = 0, work = 0;

  void clear() {
    items.clear();
    merges.clear();
    partials = most_rows = work = 0;
  }
};

void add_run(const AttentionRun& run, const AttentionSpec& spec, Plan& plan) {
  const std::int64_t group = spec.n_head / spec.n_head_kv;
  const std::int64_t block = std::clamp<std::int64_t>(kItemRows / group, 1, kPagePositions);
  const std::int64_t begin = first_seen(run.first, spec.window), end = run.first + run.rows;
  plan.most_rows = std::max(plan.most_rows, std::min(block, run.rows) * group);
  const std::int64_t chunks = (end - 1) / kItemPositions - begin / kItemPositions + 1;
  for (std::int64_t head = 0; head < spec.n_head_kv; ++head) {
    if (run.rows <= block && chunks > 1) {
      plan.merges.push_back({&run, head, plan.partials, chunks});
      for (std::int64_t c = begin / kItemPositions; c * kItemPositions < end; ++c) {
        plan.items.push_back({&run, head, 0, run.rows, std::max(begin, c * kItemPositions),
                              std::min(end, (c + 1) * kItemPositions), plan.partials++});
      }
      continue;
    }
    for (std::int64_t row = 0; row < run.rows; row += block) {
      const std::int64_t rows = std::min(block, run.rows - row);
      plan.items.push_back(
          {&run, head, row, rows, first_seen(run.first + row, spec.window), run.first + row + rows});
    }
  }
}

// Partial or complete sums of an item's rows in memory.
struct Sums {
  float *acc, *max, *sum;
  Sums(float* memory, std::int64_t rows, std::int64_t padded)
      : acc(memory), max(memory + rows * padded), sum(max + rows) {}
  static std::int64_t floats(std::int64_t rows, std::int64_t padded) {
    return (rows * (padded + 2) + 15) / 16 * 16;
  }
};

class Attention {
 public:
  Attention(const AttentionSpec& spec, const CacheLayout& layout, ConstMatrix q, Matrix out)
      : spec_(spec),
        layout_(layout),
        group_(spec.n_head / spec.n_head_kv),
        padded_(layout.head.padded_dim),
        q_(q),
        out_(out) {}

  void run(const Item& item, Sums sums, float* scratch) const {
    kernels::AttentionItem k;
    k.q = q_.row(item.run->row_begin + item.row) + item.kv_head * group_ * spec_.head_dim;
    k.q_stride = q_.stride;
    k.tokens = item.rows;
    k.group = group_;
    k.first = item.run->first + item.row;
    k.begin = item.begin;
    k.end = item.end;
    k.pages = item.run->pages.data();
    k.offset = item.run->layer_offset + static_cast<std::size_t>(item.kv_head) * layout_.head.bytes;
    k.scale = spec_.scale;
    k.softcap = spec_.softcap;
    k.window = spec_.window;
    kernels::kernels().attention->attend(layout_.head, k, sums.acc, sums.max, sums.sum, scratch);
    if (item.partial >= 0) return;
    for (std::int64_t r = 0; r < k.rows(); ++r) {
      write(sums.acc + r * padded_, 1.0f / sums.sum[r],
            out_row(*item.run, item.kv_head, item.row * group_ + r));
    }
  }

  // Adds up partial results in order of position, in fp32 like the kernel.
  void merge(const Merge& m, float* partials, std::int64_t stride) const {
    const std::int64_t rows = m.run->rows * group_;
    const auto part = [&](std::int64_t i) { return Sums(partials + (m.begin + i) * stride, rows, padded_); };
    for (std::int64_t r = 0; r < rows; ++r) {
      float max = part(0).max[r];
      for (std::int64_t i = 1; i < m.count; ++i) max = std::max(max, part(i).max[r]);
      float* total = part(0).acc + r * padded_;
      float sum = 0.0f;
      for (std::int64_t i = 0; i < m.count; ++i) {
        const Sums p = part(i);
        const float factor = std::exp(p.max[r] - max);
        sum += factor * p.sum[r];
        const float* from = p.acc + r * padded_;
        if (i == 0) {
          for (std::int64_t j = 0; j < padded_; ++j) total[j] *= factor;
        } else {
          for (std::int64_t j = 0; j < padded_; ++j) total[j] += factor * from[j];
        }
      }
      write(total, 1.0f / sum, out_row(*m.run, m.kv_head, r));
    }
  }

 private:
  float* out_row(const AttentionRun& run, std::int64_t kv_head, std::int64_t r) const {
    return out_.row(run.row_begin + r / group_) + (kv_head * group_ + r % group_) * spec_.head_dim;
  }
  void write(const float* acc, float factor, float* to) const {
    for (std::int64_t i = 0; i < spec_.head_dim; ++i) to[i] = factor * acc[i];
  }

  const AttentionSpec& spec_;
  const CacheLayout& layout_;
  std::int64_t group_, padded_;
  ConstMatrix q_;
  Matrix out_;
};

Status check(const AttentionSpec& spec, const CacheLayout& layout, ConstMatrix q,
             std::span<const AttentionRun> runs, Matrix out) {
  if (spec.n_head <= 0 || spec.n_head_kv <= 0 || spec.n_head % spec.n_head_kv != 0 ||
      spec.n_head_kv != layout.n_head_kv || spec.head_dim != layout.head.head_dim ||
      q.cols != spec.n_head * spec.head_dim || out.cols != q.cols || out.rows != q.rows) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "attention: q {} and output {} do not fit {} heads of {} over {} key heads, cached as {} heads of {}",
        q.shape().text(), out.shape().text(), spec.n_head, spec.head_dim, spec.n_head_kv, layout.n_head_kv,
        layout.head.head_dim);
  }
  for (const AttentionRun& run : runs) {
    const auto pages = static_cast<std::int64_t>(run.pages.size());
    if (run.rows < 0 || run.row_begin < 0 || run.row_begin + run.rows > q.rows || run.first < 0 ||
        run.first + run.rows > pages * kPagePositions) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "attention: rows {} .. {} at positions {} .. {} do not fit a batch of {} rows and {} pages",
          run.row_begin, run.row_begin + run.rows, run.first, run.first + run.rows, q.rows, pages);
    }
  }
  return {};
}

}  // namespace

Result<CacheLayout> CacheLayout::make(Format keys, Format values, std::int64_t n_head_kv,
                                      std::int64_t head_dim, bool rotate_keys) {
  CacheLayout layout;
  NARROW_ASSIGN(layout.head, kernels::head_layout(keys, values, head_dim, rotate_keys));
  layout.n_head_kv = n_head_kv;
  return layout;
}

Status attention(const AttentionSpec& spec, const CacheLayout& layout, ConstMatrix q,
                 std::span<const AttentionRun> runs, Matrix out) {
  NARROW_TRY(check(spec, layout, q, runs, out));
  thread_local Plan thread_plan;
  thread_local Scratch thread_scratch;
  thread_local AlignedBuffer<float> thread_partials;
  Plan& plan = thread_plan;  // of the calling thread, also inside the region
  Scratch& scratch = thread_scratch;
  AlignedBuffer<float>& partials = thread_partials;

  plan.clear();
  for (const AttentionRun& run : runs) {
    if (run.rows > 0) add_run(run, spec, plan);
  }
  if (plan.items.empty()) return {};
  // The longest go first, so that no thread is left with one at the end.
  std::stable_sort(plan.items.begin(), plan.items.end(),
                   [](const Item& a, const Item& b) { return a.cost() > b.cost(); });
  std::int64_t work = 0;
  for (const Item& item : plan.items) work += item.cost();
  work *= 2 * spec.n_head / spec.n_head_kv * spec.head_dim;

  const std::int64_t padded = layout.head.padded_dim;
  const std::int64_t sums_floats = Sums::floats(plan.most_rows, padded);
  partials.reserve_at_least(static_cast<std::size_t>(plan.partials * sums_floats));
  scratch.prepare(static_cast<std::size_t>(sums_floats) +
                  kernels::attention_scratch_floats(layout.head, plan.most_rows));

  const Attention job(spec, layout, q, out);
  const auto compute = [&](std::int64_t index, int thread) {
    const Item& item = plan.items[static_cast<std::size_t>(index)];
    float* memory = scratch.of(thread);
    float* sums = item.partial < 0 ? memory : partials.data() + item.partial * sums_floats;
    const std::int64_t rows = item.rows * (spec.n_head / spec.n_head_kv);
    job.run(item, Sums(sums, rows, padded), memory + sums_floats);
  };
  const auto count = static_cast<std::int64_t>(plan.items.size());
  if (work <= kSerialWork) {
    for (std::int64_t i = 0; i < count; ++i) compute(i, 0);
  } else {
    parallel_for(count, compute);
  }
  for (const Merge& m : plan.merges) job.merge(m, partials.data(), sums_floats);
  return {};
}

void store_cache(const CacheLayout& layout, ConstMatrix keys, ConstMatrix values, const AttentionRun& run) {
  if (run.rows == 0) return;
  const std::int64_t d = layout.head.head_dim, first_page = run.first / kPagePositions;
  const std::int64_t pages = (run.first + run.rows - 1) / kPagePositions - first_page + 1;
  const auto compute = [&](std::int64_t item, int) {
    const std::int64_t page = first_page + item / layout.n_head_kv, head = item % layout.n_head_kv;
    std::byte* to = run.pages[static_cast<std::size_t>(page)] + run.layer_offset +
                    static_cast<std::size_t>(head) * layout.head.bytes;
    const std::int64_t begin = std::max(run.first, page * kPagePositions);
    const std::int64_t end = std::min(run.first + run.rows, (page + 1) * kPagePositions);
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t row = run.row_begin + p - run.first;
      kernels::kernels().attention->store(layout.head, keys.row(row) + head * d, values.row(row) + head * d,
                                          p % kPagePositions, to);
    }
  };
  const std::int64_t items = pages * layout.n_head_kv;
  if (2 * run.rows * keys.cols < kSerialStore) {
    for (std::int64_t i = 0; i < items; ++i) compute(i, 0);
  } else {
    parallel_for(items, compute);
  }
}

}  // namespace narrow::ops

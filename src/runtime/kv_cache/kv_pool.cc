#include "runtime/kv_cache/kv_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace narrow::runtime {
namespace {

using kernels::kPagePositions;
using ops::first_seen;

// Only what is written becomes resident, in steps of 2 MB at most.
constexpr std::size_t kSlabBytes = std::size_t{32} << 20;

std::int64_t pages_for(std::int64_t positions) { return (positions + kPagePositions - 1) / kPagePositions; }

}  // namespace

std::int32_t KvPool::Group::take() {
  if (free.empty()) {
    if (slab_left < page_bytes) {
      slabs.emplace_back(std::max(kSlabBytes / page_bytes, std::size_t{1}) * page_bytes);
      slab_left = slabs.back().size();
    }
    // Room first: nothing may throw once the page is in the list.
    references.reserve(pages.size() + 1);
    free.reserve(pages.size() + 1);
    pages.push_back(slabs.back().data() + (slabs.back().size() - slab_left));
    slab_left -= page_bytes;
    references.push_back(0);
    free.push_back(static_cast<std::int32_t>(pages.size() - 1));
  }
  const std::int32_t page = free.back();
  free.pop_back();
  references[static_cast<std::size_t>(page)] = 1;
  return page;
}

void KvPool::Group::drop(std::int32_t page) {
  if (--references[static_cast<std::size_t>(page)] == 0) free.push_back(page);
}

Result<std::unique_ptr<KvPool>> KvPool::create(const KvOptions& options, std::int64_t n_head_kv,
                                               std::int64_t head_dim, std::span<const std::int64_t> windows,
                                               std::int64_t capacity) {
  std::unique_ptr<KvPool> pool(new KvPool());
  NARROW_ASSIGN(pool->layout_, ops::CacheLayout::make(options.keys, options.values, n_head_kv, head_dim,
                                                      options.rotate_keys));
  pool->max_pages_ = pages_for(capacity);
  for (const std::int64_t window : windows) {
    std::size_t g = 0;
    while (g < pool->groups_.size() && pool->groups_[g].window != window) ++g;
    if (g == pool->groups_.size()) {
      pool->groups_.emplace_back();
      pool->groups_[g].window = window;
    }
    pool->layers_.push_back({g, pool->groups_[g].page_bytes});
    pool->groups_[g].page_bytes += pool->layout_.layer_bytes();
  }
  return pool;
}

std::uint64_t KvPool::bytes() const {
  std::uint64_t total = 0;
  for (const Group& g : groups_) total += g.pages.size() * g.page_bytes;
  return total;
}

std::uint64_t KvPool::bytes_in_use() const {
  std::uint64_t total = 0;
  for (const Group& g : groups_) total += static_cast<std::uint64_t>(g.used()) * g.page_bytes;
  return total;
}

double KvPool::bytes_per_position() const {
  return static_cast<double>(layout_.layer_bytes() * layers_.size()) / static_cast<double>(kPagePositions);
}

KvSequence::KvSequence(KvPool& pool) : pool_(&pool), tables_(pool.groups_.size()) {}

KvSequence::KvSequence(KvSequence&& other) noexcept
    : pool_(other.pool_), length_(std::exchange(other.length_, 0)), tables_(std::move(other.tables_)) {
  other.tables_.clear();
}

KvSequence& KvSequence::operator=(KvSequence&& other) noexcept {
  if (this == &other) return *this;
  release_all();
  pool_ = other.pool_;
  length_ = std::exchange(other.length_, 0);
  tables_ = std::move(other.tables_);
  other.tables_.clear();
  return *this;
}

KvSequence::~KvSequence() { release_all(); }

void KvSequence::release_all() {
  for (std::size_t g = 0; g < tables_.size(); ++g) release_from(g, 0);
}

void KvSequence::set(Table& table, std::size_t group, std::size_t index, std::int32_t page) {
  table.ids[index] = page;
  table.pointers[index] = pool_->groups_[group].pages[static_cast<std::size_t>(page)];
}

void KvSequence::release_before(std::size_t group, std::int64_t page) {
  Table& t = tables_[group];
  const std::int64_t end = std::min(page, static_cast<std::int64_t>(t.ids.size()));
  for (; t.begin < end; ++t.begin) {
    const auto i = static_cast<std::size_t>(t.begin);
    pool_->groups_[group].drop(t.ids[i]);
    t.ids[i] = -1;
    t.pointers[i] = nullptr;
  }
}

void KvSequence::release_from(std::size_t group, std::int64_t page) {
  Table& t = tables_[group];
  while (static_cast<std::int64_t>(t.ids.size()) > page) {
    if (t.ids.back() >= 0) pool_->groups_[group].drop(t.ids.back());
    t.ids.pop_back();
    t.pointers.pop_back();
  }
  t.begin = std::min(t.begin, page);
}

Status KvSequence::reserve(std::int64_t n) {
  const std::int64_t end_page = pages_for(length_ + n);
  const auto last = static_cast<std::size_t>(length_ / kPagePositions);
  const auto shared = [&](std::size_t g) {
    return n > 0 && length_ % kPagePositions != 0 &&
           pool_->groups_[g].references[static_cast<std::size_t>(tables_[g].ids[last])] > 1;
  };
  for (std::size_t g = 0; g < tables_.size(); ++g) {
    const KvPool::Group& group = pool_->groups_[g];
    if (group.window > 0) {
      release_before(g, first_seen(length_ - kRewindPositions, group.window) / kPagePositions);
    }
  }
  for (std::size_t g = 0; g < tables_.size(); ++g) {
    const auto have = static_cast<std::int64_t>(tables_[g].ids.size());
    const std::int64_t needed = std::max<std::int64_t>(0, end_page - have) + (shared(g) ? 1 : 0);
    const std::int64_t left = pool_->max_pages_ - pool_->groups_[g].used();
    if (needed > left) {
      const std::int64_t room = shared(g) ? 0 : std::max<std::int64_t>(0, have * kPagePositions - length_);
      return make_error(ErrorCode::kOutOfMemory,
                        "KV cache: {} more positions asked, {} free of {}; ask for a larger context or fewer "
                        "sequences",
                        n, left * kPagePositions + room, pool_->capacity());
    }
  }
  for (std::size_t g = 0; g < tables_.size(); ++g) {
    KvPool::Group& group = pool_->groups_[g];
    Table& t = tables_[g];
    if (shared(g)) {
      const std::int32_t old = t.ids[last], own = group.take();
      std::memcpy(group.pages[static_cast<std::size_t>(own)], t.pointers[last], group.page_bytes);
      set(t, g, last, own);
      group.drop(old);
    }
    const auto pages = static_cast<std::size_t>(end_page);
    t.ids.reserve(pages);
    t.pointers.reserve(pages);
    while (t.ids.size() < pages) {
      const std::int32_t page = group.take();
      t.ids.push_back(page);
      t.pointers.push_back(nullptr);
      set(t, g, t.ids.size() - 1, page);
    }
  }
  return {};
}

void KvSequence::advance(std::int64_t n) { length_ += n; }

Status KvSequence::check_length(std::int64_t length) const {
  if (length < 0 || length > length_) {
    return make_error(ErrorCode::kInvalidArgument, "KV cache: no position {} in a sequence of {}", length,
                      length_);
  }
  for (std::size_t g = 0; g < tables_.size(); ++g) {
    const std::int64_t begin = tables_[g].begin * kPagePositions;
    if (length > 0 && first_seen(length, pool_->groups_[g].window) < begin) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "KV cache: cannot go back to position {} of {}: a layer with a window of {} has let go of "
          "the positions before {}",
          length, length_, pool_->groups_[g].window, begin);
    }
  }
  return {};
}

Status KvSequence::truncate(std::int64_t length) {
  NARROW_TRY(check_length(length));
  for (std::size_t g = 0; g < tables_.size(); ++g) release_from(g, pages_for(length));
  length_ = length;
  return {};
}

Result<KvSequence> KvSequence::fork(std::int64_t length) const {
  NARROW_TRY(check_length(length));
  KvSequence out(*pool_);
  const auto pages = static_cast<std::size_t>(pages_for(length));
  for (std::size_t g = 0; g < tables_.size(); ++g) {
    const Table& from = tables_[g];
    Table& to = out.tables_[g];
    to.ids.reserve(pages);
    to.pointers.reserve(pages);
    to.begin = std::min(from.begin, static_cast<std::int64_t>(pages));
    for (std::size_t i = 0; i < pages; ++i) {
      to.ids.push_back(from.ids[i]);
      to.pointers.push_back(from.pointers[i]);
      if (from.ids[i] >= 0) ++pool_->groups_[g].references[static_cast<std::size_t>(from.ids[i])];
    }
  }
  out.length_ = length;
  return out;
}

ops::AttentionRun KvSequence::run(std::int64_t layer, std::int64_t row_begin, std::int64_t rows) const {
  const KvPool::Layer& l = pool_->layers_[static_cast<std::size_t>(layer)];
  return {row_begin, rows, length_, tables_[l.group].pointers, l.offset};
}

}  // namespace narrow::runtime

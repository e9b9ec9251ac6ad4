// The KV cache of many sequences: pages of kernels::kPagePositions positions, taken from the system when
// first needed, shared between sequences with a common beginning, and recycled.
//
// Layers with the same sliding window form a group with pages of its own, so that pages which fell out of a
// window are given back while layers without one keep theirs. One thread at a time may use a pool and its
// sequences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/huge_buffer.h"
#include "base/result.h"
#include "ops/attention.h"

namespace narrow::runtime {

// Stored formats: f32, f16, q8_0 or q4_0. Small models lose much with keys in 4 bits unless they are rotated.
struct KvOptions {
  Format keys = Format::kF16, values = Format::kF16;
  bool rotate_keys = false;
};

// Positions that a sequence can always go back by, whatever its windows.
inline constexpr std::int64_t kRewindPositions = 64;

class KvPool {
 public:
  // windows: of each layer, 0 for none. capacity: positions of all sequences together, rounded up to whole
  // pages; a page belongs to one sequence, or to several that share it. Errors as of kernels::head_layout.
  static Result<std::unique_ptr<KvPool>> create(const KvOptions& options, std::int64_t n_head_kv,
                                                std::int64_t head_dim, std::span<const std::int64_t> windows,
                                                std::int64_t capacity);

  const ops::CacheLayout& layout() const { return layout_; }
  std::int64_t capacity() const { return max_pages_ * kernels::kPagePositions; }
  // Taken from the system so far, and the part of it that sequences hold.
  std::uint64_t bytes() const;
  std::uint64_t bytes_in_use() const;
  // Of one position over all layers.
  double bytes_per_position() const;

 private:
  friend class KvSequence;

  struct Group {
    std::int64_t window = 0;
    std::size_t page_bytes = 0;
    // Pages lie side by side in large pieces of memory, which the system can map with few translations.
    std::vector<HugeBuffer> slabs;
    std::size_t slab_left = 0;  // bytes of the last one
    std::vector<std::byte*> pages;
    std::vector<std::int32_t> references;  // of each page; 0: free
    std::vector<std::int32_t> free;

    std::int64_t used() const { return static_cast<std::int64_t>(pages.size() - free.size()); }
    std::int32_t take();
    void drop(std::int32_t page);
  };
  struct Layer {
    std::size_t group = 0, offset = 0;
  };

  KvPool() = default;

  ops::CacheLayout layout_;
  std::int64_t max_pages_ = 0;  // of each group
  std::vector<Group> groups_;
  std::vector<Layer> layers_;
};

// One sequence's pages. Per run of n tokens: reserve(n), then for each layer store and attend with run(),
// then advance(n). The pool outlives its sequences.
class KvSequence {
 public:
  explicit KvSequence(KvPool& pool);
  KvSequence(KvSequence&& other) noexcept;
  KvSequence& operator=(KvSequence&& other) noexcept;
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;
  ~KvSequence();

  std::int64_t length() const { return length_; }

  // Makes positions length() .. length() + n - 1 writable: takes pages, copies a last page that is shared,
  // gives back pages that no window reaches any more. kOutOfMemory says how many positions were asked and how
  // many are free; nothing is taken then. Throws std::bad_alloc.
  Status reserve(std::int64_t n);
  // The n positions after length() are stored. At most what is reserved.
  void advance(std::int64_t n);
  // Forgets positions from `length` on. kInvalidArgument beyond length(), or where a window has let go of
  // positions that `length` would see: further back than kRewindPositions, but for 0, which always works.
  Status truncate(std::int64_t length);
  // A sequence with the same first `length` positions. Shares their pages: nothing is copied until one of the
  // two writes into a page that both have. Errors as of truncate.
  Result<KvSequence> fork(std::int64_t length) const;

  // Rows [row_begin, row_begin + rows) of a batch as positions length() and on, in one layer. Valid until the
  // sequence changes.
  ops::AttentionRun run(std::int64_t layer, std::int64_t row_begin, std::int64_t rows) const;

 private:
  struct Table {
    std::vector<std::int32_t> ids;     // by position / kPagePositions; -1: given back
    std::vector<std::byte*> pointers;  // null: given back
    std::int64_t begin = 0;            // ids before it are given back
  };
  Status check_length(std::int64_t length) const;
  void set(Table& table, std::size_t group, std::size_t index, std::int32_t page);
  void release_before(std::size_t group, std::int64_t page);
  void release_from(std::size_t group, std::int64_t page);
  void release_all();

  KvPool* pool_;
  std::int64_t length_ = 0;
  std::vector<Table> tables_;  // one per group
};

}  // namespace narrow::runtime

// A model some of whose tensors are computed from another model's as they are read: scaled or rotated, in
// fp32, one tensor in memory at a time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model/derived.h"

namespace narrow::model {

// Names, shapes and settings are the base's; changed tensors are f32. Add changes before the source is shared
// between threads.
class TransformedSource final : public DerivedSource {
 public:
  explicit TransformedSource(std::shared_ptr<const ModelSource> base) : DerivedSource(std::move(base)) {}

  // Changes rows [row_begin, row_end) of a tensor, in `rows` [row_end - row_begin, row_length].
  using Change = std::function<void(std::int64_t row_begin, std::int64_t row_end, float* rows)>;
  enum class Reach : std::uint8_t {
    kRow,     // each row by itself: any range of rows may be asked for
    kTensor,  // needs all rows at once
  };
  // Changes of a tensor follow each other in the order in which they were added.
  void add(std::size_t index, Reach reach, Change change);
  bool changed(std::size_t index) const { return changes_.contains(index); }

  TensorView view(std::size_t index) const override;
  Status read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* out) const override;
  Status read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end, float* out) const override;
  void drop(std::size_t index) const override;

 private:
  struct Step {
    Reach reach;
    Change change;
  };
  using Values = std::shared_ptr<const std::vector<float>>;
  Result<Values> whole(std::size_t index, const std::vector<Step>& steps) const;

  std::map<std::size_t, std::vector<Step>> changes_;
  // The last tensor that had to be computed as a whole: it is usually read on, row by row.
  mutable std::mutex mutex_;
  mutable std::size_t kept_index_ = 0;
  mutable Values kept_;
};

}  // namespace narrow::model

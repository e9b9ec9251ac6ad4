// A model some of whose tensors are others, held in memory: scaled, rotated or quantized on the way.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/derived.h"

namespace narrow::model {

// Names, shapes and settings are the base's; replaced tensors may be in another format. Replace before the
// overlay is shared between threads.
class OverlaySource final : public DerivedSource {
 public:
  explicit OverlaySource(std::shared_ptr<const ModelSource> base) : DerivedSource(std::move(base)) {}

  // `data` holds every row of tensor `index` in `format`. kInvalidArgument when the sizes do not match.
  Status replace(std::size_t index, Format format, AlignedBuffer<std::byte> data);
  Status replace(std::size_t index, const std::vector<float>& values);  // as f32
  // The base's tensor again.
  void restore(std::size_t index);
  bool replaced(std::size_t index) const { return own_.contains(index); }

  TensorView view(std::size_t index) const override;
  Status read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* out) const override;
  Status read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end, float* out) const override;
  void drop(std::size_t index) const override;

 private:
  std::map<std::size_t, AlignedBuffer<std::byte>> own_;
};

}  // namespace narrow::model

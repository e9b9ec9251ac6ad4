#include "model/transformed.h"

#include <algorithm>
#include <cstring>

namespace narrow::model {

void TransformedSource::add(std::size_t index, Reach reach, Change change) {
  changes_[index].push_back({reach, std::move(change)});
  tensors_[index].format = Format::kF32;
  drop(index);
}

TensorView TransformedSource::view(std::size_t index) const {
  return changed(index) ? TensorView() : base_->view(index);
}

Result<TransformedSource::Values> TransformedSource::whole(std::size_t index,
                                                           const std::vector<Step>& steps) const {
  const std::lock_guard lock(mutex_);
  if (kept_ && kept_index_ == index) return kept_;
  const Shape& shape = tensors_[index].shape;
  kept_.reset();
  auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(shape.elements()));
  NARROW_TRY(base_->read_f32(index, 0, shape.rows(), values->data()));
  for (const Step& s : steps) s.change(0, shape.rows(), values->data());
  kept_index_ = index;
  kept_ = std::move(values);
  return kept_;
}

Status TransformedSource::read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                                   float* out) const {
  const auto it = changes_.find(index);
  if (it == changes_.end()) return base_->read_f32(index, row_begin, row_end, out);
  const std::vector<Step>& steps = it->second;
  if (std::any_of(steps.begin(), steps.end(), [](const Step& s) { return s.reach == Reach::kTensor; })) {
    const Shape& shape = tensors_[index].shape;
    if (row_begin < 0 || row_begin > row_end || row_end > shape.rows()) {
      return make_error(ErrorCode::kInternal, "tensor '{}': rows {} to {} of {}", tensors_[index].name,
                        row_begin, row_end, shape.rows());
    }
    NARROW_ASSIGN(const Values values, whole(index, steps));
    const std::int64_t k = shape.row_length();
    std::copy_n(values->data() + row_begin * k, (row_end - row_begin) * k, out);
    return {};
  }
  NARROW_TRY(base_->read_f32(index, row_begin, row_end, out));
  for (const Step& s : steps) s.change(row_begin, row_end, out);
  return {};
}

Status TransformedSource::read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                                   std::byte* out) const {
  if (!changed(index)) return base_->read_raw(index, row_begin, row_end, out);
  std::vector<float> values(
      static_cast<std::size_t>((row_end - row_begin) * tensors_[index].shape.row_length()));
  NARROW_TRY(read_f32(index, row_begin, row_end, values.data()));
  std::memcpy(out, values.data(), values.size() * sizeof(float));
  return {};
}

void TransformedSource::drop(std::size_t index) const {
  base_->drop(index);
  const std::lock_guard lock(mutex_);
  if (kept_index_ == index) kept_.reset();
}

}  // namespace narrow::model

#include "model/overlay.h"

#include <cstring>

namespace narrow::model {

Status OverlaySource::replace(std::size_t index, Format format, AlignedBuffer<std::byte> data) {
  TensorInfo info = base_->tensors()[index];
  info.format = format;
  if (data.size() != info.bytes()) {
    return make_error(ErrorCode::kInvalidArgument, "{}: tensor '{}' takes {} bytes in {}, not {}",
                      path().string(), info.name, info.bytes(), format_info(format).name, data.size());
  }
  tensors_[index] = std::move(info);
  own_[index] = std::move(data);
  return {};
}

Status OverlaySource::replace(std::size_t index, const std::vector<float>& values) {
  AlignedBuffer<std::byte> data(values.size() * sizeof(float));
  std::memcpy(data.data(), values.data(), data.size());
  return replace(index, Format::kF32, std::move(data));
}

void OverlaySource::restore(std::size_t index) {
  own_.erase(index);
  tensors_[index] = base_->tensors()[index];
}

TensorView OverlaySource::view(std::size_t index) const {
  const auto it = own_.find(index);
  if (it == own_.end()) return base_->view(index);
  return {tensors_[index].format, tensors_[index].shape, it->second.data()};
}

Status OverlaySource::read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                               std::byte* out) const {
  const auto it = own_.find(index);
  if (it == own_.end()) return base_->read_raw(index, row_begin, row_end, out);
  const std::size_t row = row_bytes(tensors_[index].format, tensors_[index].shape.row_length());
  std::memcpy(out, it->second.data() + static_cast<std::size_t>(row_begin) * row,
              static_cast<std::size_t>(row_end - row_begin) * row);
  return {};
}

Status OverlaySource::read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                               float* out) const {
  const auto it = own_.find(index);
  if (it == own_.end()) return base_->read_f32(index, row_begin, row_end, out);
  const TensorInfo& info = tensors_[index];
  const std::int64_t k = info.shape.row_length();
  const std::size_t row = row_bytes(info.format, k);
  for (std::int64_t r = row_begin; r < row_end; ++r) {
    NARROW_TRY(decode_row(info.format, it->second.data() + static_cast<std::size_t>(r) * row,
                          out + (r - row_begin) * k, k));
  }
  return {};
}

void OverlaySource::drop(std::size_t index) const {
  if (!replaced(index)) base_->drop(index);
}

}  // namespace narrow::model

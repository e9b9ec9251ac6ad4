#include "train/nodes/outlier_columns.h"

namespace narrow::train {

Result<std::shared_ptr<OutlierColumns>> OutlierColumns::create(std::shared_ptr<WeightNode> inner,
                                                               std::int64_t k,
                                                               const std::vector<std::int32_t>& columns,
                                                               Format format) {
  if (format != Format::kF16 && format != Format::kF32) {
    return make_error(ErrorCode::kInvalidArgument, "outlier columns are stored as f16 or f32, not {}",
                      format_info(format).name);
  }
  at::Tensor index = at::empty({static_cast<std::int64_t>(columns.size())}, at::kLong);
  std::int64_t before = -1;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (columns[i] <= before || columns[i] >= k) {
      return make_error(ErrorCode::kInvalidArgument,
                        "outlier column {} after {}; they ascend and are below {}", columns[i], before, k);
    }
    before = columns[i];
    index.data_ptr<std::int64_t>()[i] = before;
  }
  return std::shared_ptr<OutlierColumns>(new OutlierColumns(std::move(inner), std::move(index), format));
}

at::Tensor OutlierColumns::rest(const at::Tensor& w) const { return w.index_fill(1, columns_, 0); }

at::Tensor OutlierColumns::stored_outliers(const at::Tensor& w) const {
  const at::Tensor own = w.detach().index_select(1, columns_);
  return format_ == Format::kF16 ? own.to(at::kHalf).to(w.scalar_type()) : own;
}

at::Tensor OutlierColumns::apply(const at::Tensor& w) {
  if (phase() == Phase::kOff || phase() == Phase::kObserve) return w;
  const at::Tensor inner = inner_->apply(rest(w));
  // Straight-through: the rounding to f16 is a constant that is added.
  const at::Tensor own = w.index_select(1, columns_);
  return inner.index_copy(1, columns_, own + (stored_outliers(w) - own.detach()));
}

Result<std::vector<std::byte>> OutlierColumns::encode(const at::Tensor& w) { return inner_->encode(rest(w)); }

std::string OutlierColumns::describe() const {
  return fmt::format("{}, {} columns {}", inner_->describe(), columns_.numel(), format_info(format_).name);
}

void OutlierColumns::set_phase(Phase phase) {
  WeightNode::set_phase(phase);
  inner_->set_phase(phase);
}

}  // namespace narrow::train

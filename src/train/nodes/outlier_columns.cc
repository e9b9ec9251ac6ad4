#include "train/nodes/outlier_columns.h"

#include "train/nodes/round_to_grid.h"

namespace narrow::train {

Result<KeptColumns> KeptColumns::create(std::int64_t k, const std::vector<std::int32_t>& columns,
                                        Format format) {
  if (format != Format::kF16 && format != Format::kF32) {
    return make_error(ErrorCode::kInvalidArgument, "outlier columns are stored as f16 or f32, not {}",
                      format_info(format).name);
  }
  KeptColumns out;
  out.format_ = format;
  if (columns.empty()) return out;
  out.index_ = at::empty({static_cast<std::int64_t>(columns.size())}, at::kLong);
  std::int64_t before = -1;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (columns[i] <= before || columns[i] >= k) {
      return make_error(ErrorCode::kInvalidArgument,
                        "outlier column {} after {}; they ascend and are below {}", columns[i], before, k);
    }
    before = columns[i];
    out.index_.data_ptr<std::int64_t>()[i] = before;
  }
  return out;
}

at::Tensor KeptColumns::rest(const at::Tensor& w) const { return empty() ? w : w.index_fill(1, index_, 0); }

at::Tensor KeptColumns::stored(const at::Tensor& w) const {
  if (empty()) return at::empty({w.size(0), 0}, w.options().requires_grad(false));
  const at::Tensor own = w.detach().index_select(1, index_);
  return format_ == Format::kF16 ? own.to(at::kHalf).to(w.scalar_type()) : own;
}

at::Tensor KeptColumns::join(const at::Tensor& inside, const at::Tensor& w) const {
  if (empty()) return inside;
  return inside.index_copy(1, index_, straight_through(w.index_select(1, index_), stored(w)));
}

void KeptColumns::copy(const at::Tensor& from, at::Tensor& to) const {
  if (!empty()) to.index_copy_(1, index_, from.index_select(1, index_));
}

std::string KeptColumns::describe() const {
  return fmt::format("{} columns {}", empty() ? 0 : index_.numel(), format_info(format_).name);
}

Result<std::shared_ptr<OutlierColumns>> OutlierColumns::create(std::shared_ptr<WeightNode> inner,
                                                               std::int64_t k,
                                                               const std::vector<std::int32_t>& columns,
                                                               Format format) {
  NARROW_ASSIGN(KeptColumns kept, KeptColumns::create(k, columns, format));
  return std::shared_ptr<OutlierColumns>(new OutlierColumns(std::move(inner), std::move(kept)));
}

at::Tensor OutlierColumns::stored_outliers(const at::Tensor& w) const { return columns_.stored(w); }

at::Tensor OutlierColumns::apply(const at::Tensor& w) {
  if (phase() == Phase::kOff || phase() == Phase::kObserve) return w;
  return columns_.join(inner_->apply(columns_.rest(w)), w);
}

Result<std::vector<std::byte>> OutlierColumns::encode(const at::Tensor& w) {
  return inner_->encode(columns_.rest(w));
}

std::string OutlierColumns::describe() const {
  return fmt::format("{}, {}", inner_->describe(), columns_.describe());
}

void OutlierColumns::set_phase(Phase phase) {
  WeightNode::set_phase(phase);
  inner_->set_phase(phase);
}

}  // namespace narrow::train

// A weight some of whose input columns are kept apart in floats (LLM.int8(), Dettmers et al. 2022), around a
// node for the rest: files of 4-bit weights and int8 activations (docs/formats/int8.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "formats/format.h"
#include "train/nodes/node.h"

namespace narrow::train {

// Which columns, and what the file stores them as.
class KeptColumns {
 public:
  KeptColumns() = default;
  // kInvalidArgument: columns that do not ascend, or are not below k; a format that is neither f16 nor f32.
  static Result<KeptColumns> create(std::int64_t k, const std::vector<std::int32_t>& columns, Format format);

  bool empty() const { return !index_.defined(); }
  at::Tensor rest(const at::Tensor& w) const;    // w [n, k] with 0 in the columns
  at::Tensor stored(const at::Tensor& w) const;  // [n, c] without gradients, as the file has them
  // `inside`, which an inner node made of rest(w), with the stored columns in their places; straight-through.
  at::Tensor join(const at::Tensor& inside, const at::Tensor& w) const;
  void copy(const at::Tensor& from, at::Tensor& to) const;  // the columns, in place
  std::string describe() const;                             // "3 columns f16"

 private:
  at::Tensor index_;  // [c] int64, undefined where there are none
  Format format_ = Format::kF16;
};

class OutlierColumns final : public WeightNode {
 public:
  // `columns` ascend and are below k; their weights are stored as `format` (f16 or f32). `inner` must give 0
  // for 0.
  static Result<std::shared_ptr<OutlierColumns>> create(std::shared_ptr<WeightNode> inner, std::int64_t k,
                                                        const std::vector<std::int32_t>& columns,
                                                        Format format);

  at::Tensor apply(const at::Tensor& w) override;
  Result<std::vector<std::byte>> encode(const at::Tensor& w) override;  // inner's, of 0 in the columns
  std::vector<NamedTensor> parameters() override { return inner_->parameters(); }
  std::vector<NamedTensor> buffers() override { return inner_->buffers(); }
  std::string describe() const override;
  void set_phase(Phase phase) override;

  at::Tensor stored_outliers(const at::Tensor& w) const override;

 private:
  OutlierColumns(std::shared_ptr<WeightNode> inner, KeptColumns columns)
      : inner_(std::move(inner)), columns_(std::move(columns)) {}

  std::shared_ptr<WeightNode> inner_;
  KeptColumns columns_;
};

}  // namespace narrow::train

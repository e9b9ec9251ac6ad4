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
  OutlierColumns(std::shared_ptr<WeightNode> inner, at::Tensor columns, Format format)
      : inner_(std::move(inner)), columns_(std::move(columns)), format_(format) {}
  at::Tensor rest(const at::Tensor& w) const;  // w with 0 in the columns

  std::shared_ptr<WeightNode> inner_;
  at::Tensor columns_;  // [c] int64
  Format format_;
};

}  // namespace narrow::train

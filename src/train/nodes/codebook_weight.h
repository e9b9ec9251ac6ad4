// A weight in a format of vector codebooks (iq1_s, iq2_xxs ... iq3_s): its codes stay as they are, the f16
// factor of each super-block is learned, as in EfficientQAT's second phase (Chen et al. 2024).
#pragma once

#include <vector>

#include "formats/format.h"
#include "train/nodes/node.h"

namespace narrow::train {

class CodebookWeight final : public WeightNode {
 public:
  // Formats whose codes are vectors and whose super-blocks have a factor of their own (iq1_m's bits are
  // spread).
  static bool supports(Format format);
  // `start`: n rows of row_bytes(format, k). kInvalidArgument: sizes that do not fit. kNumeric: a factor that
  // is no finite number.
  static Result<std::shared_ptr<CodebookWeight>> create(Format format, std::vector<std::byte> start,
                                                        std::int64_t n, std::int64_t k);

  // What is stored, [n, k] in w's dtype; w's own values do not matter.
  at::Tensor apply(const at::Tensor& w) override;
  Result<std::vector<std::byte>> encode(const at::Tensor& w) override;
  std::vector<NamedTensor> parameters() override { return {{"scale", factor_}}; }
  std::vector<NamedTensor> buffers() override { return {{"start", start_}}; }
  std::string describe() const override;

  at::Tensor values() const;  // [n, k] fp32

 private:
  CodebookWeight(Format format, std::int64_t n, std::int64_t k) : format_(format), n_(n), k_(k) {}
  std::vector<std::byte> bytes() const;  // with the factors as they are now

  Format format_;
  std::int64_t n_, k_;
  at::Tensor start_;   // [n, row_bytes] uint8
  at::Tensor factor_;  // [n, super-blocks of a row] fp32, rounded to f16 where it is stored
  at::Tensor unit_;    // [n, super-blocks, block] fp32: values at a factor of 1
};

}  // namespace narrow::train

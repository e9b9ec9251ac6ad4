// Affine fake quantization, q = round(x / S + Z), of 2 to 8 bits: formats/affine.h with gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/affine.h"
#include "train/nodes/node.h"

namespace narrow::train {

enum class AffineMode : std::uint8_t {
  kDynamic,   // S and Z (or min) of the tensor at hand, by spec.range
  kObserved,  // from a moving average of each group's smallest and largest value (Jacob et al. 2018)
  kLearned,   // trained (LSQ, Esser et al. 2020; LSQ+, Bhalgat et al. 2020)
};

struct AffineOptions {
  formats::AffineSpec spec = {};
  AffineMode mode = AffineMode::kDynamic;
  double momentum = 0.01;       // kObserved: the share of the newest values in the average
  bool scaled_gradient = true;  // kLearned: LSQ's factor 1 / sqrt(elements of a group * greatest |code|)
};

// x [.., cols]; with its leading dimensions as rows it is what formats::affine_quantize takes. Values are
// those of affine_dequantize bit for bit (kDynamic: of affine_quantize's result). fp64 is computed in fp64
// with fp32 parameters; other dtypes go through fp32. Gradients of x pass unchanged for kDynamic, else only
// inside of the range (half a step past the end codes). Those of parameters, with the rounding held fixed (t
// = x / S + Z, or (x - min) / S):
//   inside  dvalue/dS = code - t; dvalue/dZ = dvalue/dmin = 0
//   outside dvalue/dS = code - Z; dvalue/dZ = -S; dvalue/dmin = 1
// Parameters (kLearned) are "scale", and "zero_point" or "min" as the mapping has it, one per group, fp32. S
// counts as at least 2^-100; Z is rounded and cut to the codes, straight-through. Without set_range() they
// start from the first tensor: symmetric S = 2 mean |x| / sqrt(greatest code) (LSQ), else what covers
// smallest to largest (LSQ+). kObserved: Phase::kObserve updates the averages; so does Phase::kOn where
// gradients are recorded, after use.
class AffineNode : public Node {
 public:
  // rows: those of a weight, or 0 for activations of any number of tokens (then kObserved and kLearned are
  // for scope kTensor only). kInvalidArgument names what does not go together.
  static Result<std::shared_ptr<AffineNode>> create(std::int64_t rows, std::int64_t cols,
                                                    const AffineOptions& options);

  at::Tensor apply(const at::Tensor& x) override;
  std::vector<NamedTensor> parameters() override;
  std::vector<NamedTensor> buffers() override;  // kObserved: "range" [groups, 2], "count" [1]
  std::string describe() const override;

  // One scale per group, and its zero point or min (empty for symmetric): where kLearned starts.
  Status set_range(const std::vector<float>& scale, const std::vector<float>& offset);
  // Codes and parameters of what apply(x) gives. kNumeric: NaN or infinity in x.
  Result<formats::AffineQuantized> quantize(const at::Tensor& x) const;

 private:
  AffineNode(std::int64_t rows, std::int64_t cols, const AffineOptions& options);
  // Parameters as stored, fp32 [groups].
  struct Range {
    at::Tensor scale, offset;  // offset: zero point or min; 0 for symmetric
  };
  Range range_of(const at::Tensor& rows) const;  // [m, cols] fp32
  void observe(const at::Tensor& rows);
  void start_from(const at::Tensor& rows);
  std::int64_t row_groups() const;  // 0 for kTensor

  std::int64_t rows_, cols_;
  AffineOptions options_;
  at::Tensor scale_, offset_;  // kLearned, [groups]; undefined before the start is known
  at::Tensor range_, count_;   // kObserved
};

}  // namespace narrow::train

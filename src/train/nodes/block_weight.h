// A weight as a block format (q4_0, q4_k, mxfp4, tq2_0 ...) stores it: every format with
// formats::grid_codec().
#pragma once

#include <vector>

#include "formats/grid.h"
#include "train/nodes/node.h"

namespace narrow::train {

// Where the scales (and mins) of the groups come from.
enum class BlockScales : std::uint8_t {
  kFixed,     // as in the start bytes
  kLearned,   // parameters, from the start bytes on (LSQ, LSQ+)
  kAbsMax,    // encoded anew each time, plain absmax or min/max
  kSearched,  // encoded anew each time with the encoder's search: slow
};

struct BlockWeightOptions {
  BlockScales scales = BlockScales::kFixed;
  // Weights beyond the range of their group keep their gradient. Otherwise it is 0 there (kFixed, kLearned;
  // the other two let all gradients through, since their range follows the weights).
  bool pass_clipped = false;
  // LSQ's factor 1 / sqrt(group * greatest |level|) on the gradients of scales and mins.
  bool scaled_gradient = true;
};

// kLearned: "scale" and "min" [n, k / group], fp32, are what gradients move; the forward pass rounds them to
// what the format can store (f16; small multiples of f16 factors, see formats::write_grid; powers of two)
// with straight-through gradients. Rounding of weights and all gradients: grid_kernel.h. fp64 weights are
// computed in fp64 (for gradient checks), other dtypes through fp32.
class BlockWeight : public WeightNode {
 public:
  // `start`: n rows of row_bytes(format, k), for instance a post-training quantization's result; may be empty
  // for kAbsMax and kSearched. kUnsupported: a format without scalar codes. kInvalidArgument: sizes that do
  // not fit. kNumeric: a scale in `start` that is no finite number.
  static Result<std::shared_ptr<BlockWeight>> create(Format format, std::vector<std::byte> start,
                                                     std::int64_t n, std::int64_t k,
                                                     const BlockWeightOptions& options = {});

  at::Tensor apply(const at::Tensor& w) override;
  Result<std::vector<std::byte>> encode(const at::Tensor& w) override;
  std::vector<NamedTensor> parameters() override;
  // kFixed, kLearned: "start", the start bytes [n, row_bytes], uint8.
  std::vector<NamedTensor> buffers() override;
  std::string describe() const override;

  // Latent weights [n, k] that apply() turns into the very values of the start bytes, each leaning towards
  // `reference` (the full-precision weight) by at most 0.49 of the step to the level beside it: the least
  // training moves them on. Needs start bytes.
  at::Tensor start_latent(const at::Tensor& reference) const;
  // What the start bytes decode to, [n, k] fp32.
  at::Tensor start_values() const;

  Format format() const { return format_; }

 private:
  BlockWeight(Format format, std::int64_t n, std::int64_t k, const BlockWeightOptions& options);
  bool reencodes() const { return options_.scales >= BlockScales::kAbsMax; }
  // The scales and mins [n, k / group] that stored bytes hold, of the parameters where they are learned.
  struct Grid {
    at::Tensor scale, min;
  };
  Grid grid() const;
  std::vector<std::byte> encode_anew(const float* w) const;

  Format format_;
  const formats::GridCodec* codec_;
  std::int64_t n_, k_, groups_;  // groups of a row
  BlockWeightOptions options_;
  at::Tensor start_;        // [n, row_bytes] uint8, or undefined
  at::Tensor scale_, min_;  // kLearned
};

}  // namespace narrow::train

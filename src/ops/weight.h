// A weight matrix in the form in which products use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/huge_buffer.h"
#include "kernels/dense_int8.h"
#include "kernels/packed.h"
#include "tensor/tensor.h"

namespace narrow::ops {

// [n, k] as stored, and its packed panels where it has been packed. A view: owns nothing.
struct Weight {
  TensorView stored;
  // At most one of them: products in the stored format, or of int8 per output channel. Neither: products
  // decode the stored rows to fp32.
  const kernels::PackedKernel* kernel = nullptr;
  const kernels::DenseInt8Kernel* dense = nullptr;
  const std::byte* panels = nullptr;
  // How the activations that meet a dense weight become int8. `row_scale`: those of a weight in its stored
  // format likewise, instead of with a scale per group.
  kernels::DenseInt8Scheme scheme;
  bool row_scale = false;
  // Dense weights stored as codes (i8): one scale per output feature.
  const float* code_scales = nullptr;
  // Input columns that stay fp32 on both sides (LLM.int8(), Dettmers et al. 2022): ascending, [n_outliers].
  // Their weights are `outlier_stored` [n, n_outliers], or those columns of `stored` where that is empty;
  // packing makes outlier_rows [n_outliers, n] of them.
  const std::int32_t* outliers = nullptr;
  std::int64_t n_outliers = 0;
  TensorView outlier_stored;
  const float* outlier_rows = nullptr;
  // Not null: fp32 products of dequantized values [n, k], which equal those of the integers (ops/simulate.h).
  const float* simulated = nullptr;

  Weight() = default;
  Weight(const TensorView& view) : stored(view) {}
  bool empty() const { return stored.empty(); }
  std::int64_t n() const { return stored.shape[0]; }
  std::int64_t k() const { return stored.shape[1]; }
  bool packed() const { return panels != nullptr; }
  // Of one panel, and features in it; packed weights only.
  std::size_t panel_bytes() const;
  std::int64_t panel_rows() const;
};

// How a weight is to be packed.
struct PackAs {
  bool dense = false;     // int8 per output channel (absmax / 127, round to nearest) whatever is stored
  bool simulate = false;  // dequantized values instead of panels, for dense weights and those with row_scale
};

// Whether the instruction set in use has an integer kernel for this format.
const kernels::PackedKernel* packed_kernel(Format format);

// Packs weights into memory that it owns, on all threads, in the order given. The members that say how
// (scheme, row_scale, code_scales, outliers) are set before.
class PackedWeights {
 public:
  // Throws std::bad_alloc. Weights for which there is no integer kernel stay as they are. `done(i)` is called
  // whenever a few megabytes of weight i have been packed, and at its end: stored bytes read so far are
  // needed no more.
  template <class Done>
  void pack(const std::vector<Weight*>& weights, const PackAs& as, Done done) {
    for (Weight* w : weights) {
      choose(*w, as);
      add_outliers(*w);
    }
    if (as.simulate) {
      for (std::size_t i = 0; i < weights.size(); ++i) {
        simulate(*weights[i]);
        done(i);
      }
      return;
    }
    const std::vector<std::size_t> offsets = reserve(weights);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i]->kernel == nullptr && weights[i]->dense == nullptr) continue;
      for (std::int64_t panel = 0; panel < panel_count(*weights[i]);) {
        panel = pack_some(*weights[i], offsets[i], panel);
        done(i);
      }
      weights[i]->panels = panels_.data() + offsets[i];
    }
  }
  std::size_t bytes() const;  // of all that it owns

 private:
  static void choose(Weight& weight, const PackAs& as);
  std::vector<std::size_t> reserve(const std::vector<Weight*>& weights);
  static std::int64_t panel_count(const Weight& weight);
  // Packs panels from `panel` on; returns the first that is left.
  std::int64_t pack_some(const Weight& weight, std::size_t offset, std::int64_t panel);

  // fp32 rows of the outlier columns' weights.
  void add_outliers(Weight& weight);
  // Dequantized values of a weight that has an integer kernel, which it then does without.
  void simulate(Weight& weight);

  HugeBuffer panels_;
  std::vector<AlignedBuffer<float>> values_;  // outliers and simulated weights
};

}  // namespace narrow::ops

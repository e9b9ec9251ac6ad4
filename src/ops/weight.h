// A weight matrix in the form in which products use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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
  kernels::DenseInt8Scheme scheme;  // of the activations that meet a dense weight

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
  bool dense = false;  // int8 per output channel (absmax / 127, round to nearest) whatever is stored
  kernels::DenseInt8Scheme scheme;
};

// Whether the instruction set in use has an integer kernel for this format.
const kernels::PackedKernel* packed_kernel(Format format);

// Packs weights into one block of memory that it owns, on all threads, in the order given.
class PackedWeights {
 public:
  // Throws std::bad_alloc. Weights for which there is no integer kernel stay as they are. `done(i)` is called
  // whenever a few megabytes of weight i have been packed, and at its end: stored bytes read so far are
  // needed no more.
  template <class Done>
  void pack(const std::vector<Weight*>& weights, const PackAs& as, Done done) {
    for (Weight* w : weights) choose(*w, as);
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
  std::size_t bytes() const { return panels_.size(); }

 private:
  static void choose(Weight& weight, const PackAs& as);
  std::vector<std::size_t> reserve(const std::vector<Weight*>& weights);
  static std::int64_t panel_count(const Weight& weight);
  // Packs panels from `panel` on; returns the first that is left.
  std::int64_t pack_some(const Weight& weight, std::size_t offset, std::int64_t panel);

  HugeBuffer panels_;
};

}  // namespace narrow::ops

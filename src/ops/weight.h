// A weight matrix in the form in which products use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/huge_buffer.h"
#include "kernels/packed.h"
#include "tensor/tensor.h"

namespace narrow::ops {

// [n, k] as stored, and its packed panels where it has been packed. A view: owns nothing.
struct Weight {
  TensorView stored;
  const kernels::PackedKernel* kernel = nullptr;  // null: products decode the stored rows to fp32
  const std::byte* panels = nullptr;

  Weight() = default;
  Weight(const TensorView& view) : stored(view) {}
  bool empty() const { return stored.empty(); }
  std::int64_t n() const { return stored.shape[0]; }
  std::int64_t k() const { return stored.shape[1]; }
  bool packed() const { return panels != nullptr; }
};

// Whether the instruction set in use has an integer kernel for this format.
const kernels::PackedKernel* packed_kernel(Format format);

// Packs weights into one block of memory that it owns, on all threads, in the order given.
class PackedWeights {
 public:
  // Throws std::bad_alloc. Weights whose format has no integer kernel stay as they are. `done(i)` is called
  // after weight i has been packed, when its stored bytes are needed no more.
  template <class Done>
  void pack(const std::vector<Weight*>& weights, Done done) {
    const std::vector<std::size_t> offsets = reserve(weights);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (pack_one(*weights[i], offsets[i])) done(i);
    }
  }
  std::size_t bytes() const { return panels_.size(); }

 private:
  std::vector<std::size_t> reserve(const std::vector<Weight*>& weights);
  bool pack_one(Weight& weight, std::size_t offset);

  HugeBuffer panels_;
};

}  // namespace narrow::ops

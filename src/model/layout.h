// Between a canonical tensor and the Hugging Face tensors that its rule names.
#pragma once

#include <cstdint>
#include <vector>

#include "model/arch/arch.h"
#include "tensor/tensor.h"

namespace narrow::model {

// A tensor as units: contiguous rows, or the elements of a 1-D tensor where the rule moves them.
struct Units {
  std::int64_t count = 0;   // units of the canonical tensor
  std::int64_t length = 0;  // elements of one
};
Units units_of(const TensorRule& rule);

// Which unit of which Hugging Face tensor is canonical unit u. Not for kTranspose and kValues.
struct UnitSource {
  std::size_t tensor = 0;
  std::int64_t unit = 0;
};
UnitSource source_of(const TensorRule& rule, std::int64_t u);

}  // namespace narrow::model

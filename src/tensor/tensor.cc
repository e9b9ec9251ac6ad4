#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace narrow {

std::int64_t Shape::elements() const {
  std::int64_t n = 1;
  for (const std::int64_t d : dims_) n *= d;
  return n;
}

std::int64_t Shape::rows() const {
  std::int64_t n = 1;
  for (std::size_t i = 0; i + 1 < dims_.size(); ++i) n *= dims_[i];
  return n;
}

std::string Shape::text() const { return fmt::format("[{}]", fmt::join(dims_, ", ")); }

std::size_t TensorInfo::bytes() const {
  return static_cast<std::size_t>(shape.rows()) * row_bytes(format, shape.row_length());
}

}  // namespace narrow

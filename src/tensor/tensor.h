// Shapes and views of stored tensors. A view owns nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/format.h"

namespace narrow {

inline constexpr int kMaxDims = 4;

// Row-major: the last dimension is contiguous, as in PyTorch: [n, k] is n rows of k elements.
// (GGUF stores the reverse order on disk; io/ turns it.) Rank 0 is a scalar with one element.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : dims_(dims) {}
  explicit Shape(std::vector<std::int64_t> dims) : dims_(std::move(dims)) {}
  int rank() const { return static_cast<int>(dims_.size()); }
  std::int64_t operator[](int i) const { return dims_[static_cast<std::size_t>(i)]; }
  std::int64_t elements() const;
  // Length of a contiguous row, and how many of them: [2, 3, 4] is 6 rows of 4.
  std::int64_t row_length() const { return dims_.empty() ? 1 : dims_.back(); }
  std::int64_t rows() const;
  const std::vector<std::int64_t>& dims() const { return dims_; }
  std::string text() const;  // "[2, 3, 4]"
  bool operator==(const Shape&) const = default;

 private:
  std::vector<std::int64_t> dims_;
};

// A stored tensor: what it is called, how it is stored, how large it is.
struct TensorInfo {
  std::string name;
  Format format = Format::kF32;
  Shape shape;
  std::size_t bytes() const;  // rows() * row_bytes(format, row_length())
};

// Bytes of a tensor in memory (usually of a mapped file).
struct TensorView {
  Format format = Format::kF32;
  Shape shape;
  const std::byte* data = nullptr;
  bool empty() const { return data == nullptr; }
  std::size_t stride_bytes() const { return row_bytes(format, shape.row_length()); }
  const std::byte* row(std::int64_t r) const { return data + static_cast<std::size_t>(r) * stride_bytes(); }
};

// Which elements share one scale.
enum class GranularityKind : std::uint8_t { kPerTensor, kPerChannel, kPerGroup, kPerToken };
struct Granularity {
  GranularityKind kind = GranularityKind::kPerTensor;
  int group_size = 0;  // elements of one row, for kPerGroup
};

}  // namespace narrow

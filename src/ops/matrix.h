// Row-major fp32 matrices in memory. Views own nothing.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/tensor.h"

namespace narrow::ops {

// [rows, cols], rows `stride` floats apart (stride >= cols).
struct Matrix {
  float* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;

  Matrix() = default;
  Matrix(float* d, std::int64_t r, std::int64_t c) : Matrix(d, r, c, c) {}
  Matrix(float* d, std::int64_t r, std::int64_t c, std::int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  float* row(std::int64_t r) const { return data + r * stride; }
  // Columns [begin, begin + n) of every row.
  Matrix columns(std::int64_t begin, std::int64_t n) const { return {data + begin, rows, n, stride}; }
  Shape shape() const { return {rows, cols}; }
};

struct ConstMatrix {
  const float* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;

  ConstMatrix() = default;
  ConstMatrix(const float* d, std::int64_t r, std::int64_t c) : ConstMatrix(d, r, c, c) {}
  ConstMatrix(const float* d, std::int64_t r, std::int64_t c, std::int64_t s)
      : data(d), rows(r), cols(c), stride(s) {}
  ConstMatrix(const Matrix& m) : ConstMatrix(m.data, m.rows, m.cols, m.stride) {}
  const float* row(std::int64_t r) const { return data + r * stride; }
  ConstMatrix columns(std::int64_t begin, std::int64_t n) const { return {data + begin, rows, n, stride}; }
  Shape shape() const { return {rows, cols}; }
};

}  // namespace narrow::ops

// Rows of a matrix on the grids of a format: scales from the format's encoder, codes chosen one by one.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/format.h"
#include "formats/grid.h"

namespace narrow::quant {

// One row. Its blocks' scales are fitted and then stay while codes are chosen; set_factors moves them.
class GridRow {
 public:
  // k is a multiple of the format's block; the format has a grid.
  GridRow(Format format, std::int64_t k);

  // Fits the scales of block b to its values x [block], with importances [block] or null.
  void fit(std::int64_t b, const float* x, const float* importance, bool search);
  // Chooses the code of element j for x; returns its value.
  float choose(std::int64_t j, float x) {
    const auto i = static_cast<std::size_t>(j);
    const auto g = static_cast<std::size_t>(j / group_);
    const std::uint8_t c = nearest(x, inverse_[g], min_[g]);
    code_[i] = c;
    return scale_[g] * levels_[c] + min_[g];
  }
  float value(std::int64_t j) const {
    const auto g = static_cast<std::size_t>(j / group_);
    return scale_[g] * levels_[code_[static_cast<std::size_t>(j)]] + min_[g];
  }
  // Directions of block b's values in its f16 factors with the codes as they are: d * a + dmin * m. False
  // where the format's factors are no f16. has_min: the format has dmin.
  bool directions(std::int64_t b, float* d, float* dmin, float* a, float* m);
  bool has_factors() const { return codec_->d_offset >= 0; }
  bool has_min() const { return codec_->dmin_offset >= 0; }
  // Stores other factors (rounded to f16) and reads the grid anew.
  void set_factors(std::int64_t b, float d, float dmin);
  // The row as stored, codes and all.
  void store(std::byte* out);

  int block() const { return block_; }

 private:
  std::uint8_t nearest(float x, float inverse, float min) const;
  std::byte* block_bytes(std::int64_t b) {
    return bytes_.data() + static_cast<std::size_t>(b) * block_bytes_;
  }
  void read(std::int64_t b);

  const FormatInfo* info_;
  const formats::GridCodec* codec_;
  const float* levels_;
  int n_levels_, block_, group_;
  std::size_t block_bytes_;
  std::int64_t k_;
  std::vector<std::byte> bytes_;
  std::vector<std::uint8_t> code_;
  std::vector<float> scale_, inverse_, min_;
};

}  // namespace narrow::quant

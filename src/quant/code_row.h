// One row of a matrix in a block format whose scales are set and whose codes are chosen unit by unit: single
// weights where a format has scalar codes, 8 where it has a codebook of vectors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "formats/format.h"
#include "formats/grid.h"
#include "formats/unit_codec.h"

namespace narrow::quant {

class CodeRow {
 public:
  // Whether narrow can choose codes in this format at all.
  static bool supports(Format format);
  // k is a multiple of the format's block; the format is supported.
  CodeRow(Format format, std::int64_t k);

  int unit() const { return unit_; }    // weights decided together
  int block() const { return block_; }  // weights that share stored scales
  // Encodes the row x [k]: round to nearest with scales fitted for `importance` [k] (null for none).
  void fit(const float* x, const float* importance, bool search);
  // Block b alone, encoded anew for x [block]; restore_block takes that back, once.
  void encode_block(std::int64_t b, const float* x, const float* importance, bool search);
  void restore_block(std::int64_t b);
  void block_values(std::int64_t b, float* y);  // [block]
  // Chooses the codes of unit u for x [unit] under the metric M [unit, unit] (of a loss (x - y)^T M (x - y));
  // y [unit] is what they decode to. Units of one weight need no metric.
  void decide(std::int64_t u, const float* x, const float* metric, float* y);
  // What the row decodes to, [k].
  void values(float* y);

  // Of block b with its codes as they are: its f16 factors, and its values when one of them is 1 and the
  // other 0. False where the format's factors are not f16. m is used only with has_min().
  bool directions(std::int64_t b, float* d, float* dmin, float* a, float* m);
  bool has_min() const { return dmin_offset_ >= 0; }
  // Stores other factors, which f16 must hold exactly. Codes stay.
  void set_factors(std::int64_t b, float d, float dmin);
  // The row as stored, row_bytes(format, k).
  const std::byte* stored();

 private:
  std::byte* bytes_of(std::int64_t b) { return bytes_.data() + static_cast<std::size_t>(b) * block_bytes_; }
  std::uint8_t nearest(float x, std::size_t group) const;
  void grid_values(std::int64_t begin, std::int64_t n, float* y) const;
  void read(std::int64_t b);
  void write(std::int64_t b);

  const FormatInfo* info_;
  const formats::GridCodec* grid_;  // one of the two
  const formats::UnitCodec* units_;
  int unit_, block_, group_ = 1, d_offset_ = -1, dmin_offset_ = -1;
  std::size_t block_bytes_;
  std::int64_t k_;
  std::vector<std::byte> bytes_;
  std::array<float, 16> middle_;  // between neighbours of up to 16 levels that are no whole numbers in a row
  // Of scalar codes; they reach bytes_ by write().
  std::vector<std::uint8_t> codes_;
  std::vector<float> scale_, inverse_, min_;
  std::vector<std::byte> saved_bytes_;  // of the block last encoded anew
  std::vector<std::uint8_t> saved_codes_;
};

}  // namespace narrow::quant

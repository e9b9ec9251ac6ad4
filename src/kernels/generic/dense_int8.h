// The readable products of dense int8 rows, and what all instruction sets share of them: the panel's layout
// and the choice of a row's scale. Shared functions are static: each translation unit has its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dense_int8.h"

namespace narrow::kernels::generic {

// A panel is dense_int8_padded(k) / 4 code vectors of 16 features x 4 consecutive elements, then a trailer.
// Codes are stored as u = q + 128, because the instructions multiply unsigned by signed; padding has any u
// (activations are 0 there), and
//   sum (qx - z) (q - Z) = sum qx * u - (Z + 128) * (sum qx) - z * (sum (q - Z)).
struct DenseInt8Trailer {
  float scale[kDenseInt8PanelRows];        // S
  std::int32_t zero[kDenseInt8PanelRows];  // Z + 128
  std::int32_t sum[kDenseInt8PanelRows];   // sum of (q - Z)
};
static_assert(sizeof(DenseInt8Trailer) == 192);

static inline std::int64_t dense_int8_code_bytes(std::int64_t k) {
  return dense_int8_padded(k) * kDenseInt8PanelRows;
}
static inline std::int64_t dense_int8_panel_size(std::int64_t k) {
  return dense_int8_code_bytes(k) + static_cast<std::int64_t>(sizeof(DenseInt8Trailer));
}

// What a row with these extremes is multiplied by, and what stands for 0. `usable` is false where all q are
// 0.
struct DenseInt8Row {
  float scale, inverse;
  std::int32_t zero;
  bool usable;
};
static inline DenseInt8Row dense_int8_row(const DenseInt8Scheme& scheme, float lo, float hi, bool nan) {
  if (nan) return {__builtin_nanf(""), 0.0f, 0, false};
  if (scheme.scale > 0.0f) {
    return {scheme.scale, 1.0f / scheme.scale, scheme.asymmetric ? scheme.zero : 0, true};
  }
  lo = lo < 0.0f ? lo : 0.0f;
  hi = hi > 0.0f ? hi : 0.0f;
  const float range = scheme.asymmetric ? hi - lo : (hi > -lo ? hi : -lo);
  const float steps = scheme.asymmetric ? 255.0f : 127.0f;
  const float scale = range < __builtin_inff() ? dense_int8_scale(range / steps) : range;
  const float inverse = 1.0f / scale;
  if (range == __builtin_inff()) return {range, 0.0f, 0, false};
  if (!(range > 0.0f) || inverse == __builtin_inff()) return {0.0f, 0.0f, 0, false};
  const std::int32_t zero =
      scheme.asymmetric ? static_cast<std::int32_t>(__builtin_nearbyintf(-128.0f - lo * inverse)) : 0;
  return {scale, inverse, zero, true};
}

void dense_int8_quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                             float* scale, std::int32_t* zero, std::int32_t* sum);
std::size_t dense_int8_panel_bytes(std::int64_t k);
void dense_int8_pack(const std::int8_t* codes, std::int64_t stride, const float* scale,
                     const std::int8_t* zero, std::int64_t n_rows, std::int64_t k, std::byte* panel);

extern const DenseInt8Kernel kDenseInt8;

}  // namespace narrow::kernels::generic

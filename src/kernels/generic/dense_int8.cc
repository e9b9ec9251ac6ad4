#include "kernels/generic/dense_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace narrow::kernels::generic {
namespace {

void multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
              std::int64_t out_stride) {
  for (std::int64_t n = 0; n < n_rows; ++n) {
    const std::int64_t lane = n % kDenseInt8PanelRows;
    const std::byte* panel = panels + n / kDenseInt8PanelRows * dense_int8_panel_size(x.k);
    const auto* codes = reinterpret_cast<const std::uint8_t*>(panel) + 4 * lane;
    DenseInt8Trailer trailer;
    std::memcpy(&trailer, panel + dense_int8_code_bytes(x.k), sizeof trailer);
    const std::int32_t zero_n = trailer.zero[lane];
    for (std::int64_t t = 0; t < x.m; ++t) {
      const std::int8_t* q = x.q + t * dense_int8_stride(x.k);
      std::int32_t sum = 0;
      for (std::int64_t i = 0; i < x.k; ++i) {
        const std::int32_t code = codes[i / 4 * 4 * kDenseInt8PanelRows + i % 4];
        sum += (q[i] - x.zero[t]) * (code - zero_n);
      }
      out[t * out_stride + n] = (x.scale[t] * trailer.scale[lane]) * static_cast<float>(sum);
    }
  }
}

}  // namespace

void dense_int8_quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                             float* scale, std::int32_t* zero, std::int32_t* sum) {
  float lo = 0.0f, hi = 0.0f;
  bool nan = false;
  for (std::int64_t i = 0; i < k; ++i) {
    lo = std::min(lo, x[i]);
    hi = std::max(hi, x[i]);
    nan = nan || std::isnan(x[i]);
  }
  const DenseInt8Row row = dense_int8_row(scheme, lo, hi, nan);
  const float least = scheme.asymmetric ? -128.0f : -127.0f;
  std::memset(q, 0, static_cast<std::size_t>(dense_int8_padded(k)));
  *sum = 0;
  for (std::int64_t i = 0; i < k && row.usable; ++i) {
    const float code = std::nearbyint(x[i] * row.inverse) + static_cast<float>(row.zero);
    q[i] = static_cast<std::int8_t>(std::clamp(code, least, 127.0f));
    *sum += q[i];
  }
  *scale = row.scale;
  *zero = row.zero;
}

std::size_t dense_int8_panel_bytes(std::int64_t k) {
  return static_cast<std::size_t>(dense_int8_panel_size(k));
}

void dense_int8_pack(const std::int8_t* codes, std::int64_t stride, const float* scale,
                     const std::int8_t* zero, std::int64_t n_rows, std::int64_t k, std::byte* panel) {
  std::memset(panel, 128, static_cast<std::size_t>(dense_int8_code_bytes(k)));
  auto* out = reinterpret_cast<std::uint8_t*>(panel);
  DenseInt8Trailer trailer{};
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const std::int8_t* row = codes + r * stride;
    const std::int32_t z = zero == nullptr ? 0 : zero[r];
    std::int32_t sum = 0;
    for (std::int64_t i = 0; i < k; ++i) {
      out[(i / 4 * kDenseInt8PanelRows + r) * 4 + i % 4] = static_cast<std::uint8_t>(row[i] + 128);
      sum += row[i] - z;
    }
    trailer.scale[r] = scale[r];
    trailer.zero[r] = z + 128;
    trailer.sum[r] = sum;
  }
  std::memcpy(panel + dense_int8_code_bytes(k), &trailer, sizeof trailer);
}

const DenseInt8Kernel kDenseInt8 = {
    .quantize_row = dense_int8_quantize_row,
    .panel_bytes = dense_int8_panel_bytes,
    .pack = dense_int8_pack,
    .multiply = multiply,
};

}  // namespace narrow::kernels::generic

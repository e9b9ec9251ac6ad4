#include "kernels/generic/packed.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/packed/layout.h"
#include "kernels/packed/stored.h"

namespace narrow::kernels::generic {
namespace {

using packed::Layout;
using packed::Levels;
using packed::StoredUnit;

constexpr int kPanelRows = 16;

// A panel is its rows as they are stored, one after the other.
template <Format kFormat>
std::size_t panel_bytes(std::int64_t k) {
  return (row_bytes(kFormat, k) * kPanelRows + 63) / 64 * 64;
}

template <Format kFormat>
void pack(const std::byte* rows, std::size_t stride_bytes, std::int64_t n_rows, std::int64_t k,
          std::byte* panel) {
  const std::size_t bytes = row_bytes(kFormat, k);
  std::memset(panel, 0, panel_bytes<kFormat>(k));
  for (std::size_t r = 0; r < static_cast<std::size_t>(n_rows); ++r) {
    std::memcpy(panel + r * bytes, rows + r * stride_bytes, bytes);
  }
}

// A unit as the arithmetic of packed.h sees it.
struct Unit {
  int level[packed::kMaxUnit];  // code - offset
  float scale[packed::kMaxUnit / kSumRun], min[packed::kMaxUnit / kSumRun];
};

// 2^(e - 128): mxfp4's levels are doubled.
float half_exponent(std::uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<std::uint32_t>(e - 1) << 23);
}

void read(const Layout& layout, const std::byte* row, std::int64_t index, Unit& unit) {
  StoredUnit stored{};
  packed::read_unit(layout.format, row, index, stored);
  for (int i = 0; i < layout.unit; ++i) {
    const int code = stored.codes[i];
    unit.level[i] = layout.levels == Levels::kNonLinear ? packed::kNonLinear[code]
                    : layout.levels == Levels::kE2M1    ? packed::kE2M1[code]
                                                        : code - layout.offset;
  }
  const float d = layout.exponent() ? half_exponent(stored.values[0]) : to_f32(stored.halves[0]);
  const float m = layout.halves == 2 ? to_f32(stored.halves[1]) : 0.0f;
  for (int r = 0; r < layout.unit / layout.run; ++r) {
    unit.scale[r] = d;
    unit.min[r] = -m;
    if (layout.values == 0 || layout.exponent()) continue;
    const std::uint8_t value = stored.values[r];
    const int factor = layout.value_bits == 8 ? static_cast<std::int8_t>(value) : value - layout.value_offset;
    unit.scale[r] = d * static_cast<float>(factor);
    if (layout.minima) unit.min[r] = m * static_cast<float>(stored.values[layout.values / 2 + r]);
  }
}

int dot(const int* level, const std::int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += level[i] * q[i];
  return sum;
}

// y plus the products of group g of the unit with group `at` of token t.
float add_group(const Layout& layout, const Unit& unit, int g, const QuantizedRows& x, std::int64_t t,
                std::int64_t at, float y) {
  const int* level = unit.level + g * packed::kGroup;
  const float* scale = unit.scale + g * layout.runs();
  const float* min = unit.min + g * layout.runs();
  const std::int8_t* q = x.q + t * x.k + at * kActivationGroup;
  const float x_scale = x.scale[t * (x.k / kActivationGroup) + at];
  const std::int32_t* sums = x.sums + t * (x.k / kSumRun) + at * 2;
  float u = static_cast<float>(dot(level, q, layout.run)) * scale[0];
  if (layout.runs() == 2) {
    u = std::fma(static_cast<float>(dot(level + kSumRun, q + kSumRun, layout.run)), scale[1], u);
  }
  y = std::fma(u, x_scale, y);
  if (!layout.minima) return y;
  if (layout.runs() == 1) return std::fma(-min[0], x_scale * static_cast<float>(sums[0] + sums[1]), y);
  y = std::fma(-min[0], x_scale * static_cast<float>(sums[0]), y);
  return std::fma(-min[1], x_scale * static_cast<float>(sums[1]), y);
}

std::size_t scratch_bytes(std::int64_t /*k*/, std::int64_t /*m*/) { return 0; }

template <Format kFormat>
void multiply(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x, float* out,
              std::int64_t out_stride, std::byte* /*scratch*/) {
  constexpr Layout kLayout = packed::layout_of(kFormat);
  const std::size_t bytes = row_bytes(kFormat, x.k);
  for (std::int64_t n = 0; n < n_rows; ++n) {
    const std::byte* row = panels + static_cast<std::size_t>(n / kPanelRows) * panel_bytes<kFormat>(x.k) +
                           static_cast<std::size_t>(n % kPanelRows) * bytes;
    for (std::int64_t t = 0; t < x.m; ++t) out[t * out_stride + n] = 0.0f;
    for (std::int64_t u = 0; u < x.k / kLayout.unit; ++u) {
      Unit unit;
      read(kLayout, row, u, unit);
      for (int g = 0; g < kLayout.groups(); ++g) {
        for (std::int64_t t = 0; t < x.m; ++t) {
          float& y = out[t * out_stride + n];
          y = add_group(kLayout, unit, g, x, t, u * kLayout.groups() + g, y);
        }
      }
    }
  }
}

template <Format kFormat>
constexpr PackedKernel kKernel{panel_bytes<kFormat>, pack<kFormat>, scratch_bytes, multiply<kFormat>};

}  // namespace

const PackedKernel packed_q4_0 = kKernel<Format::kQ4_0>;
const PackedKernel packed_q4_1 = kKernel<Format::kQ4_1>;
const PackedKernel packed_q5_0 = kKernel<Format::kQ5_0>;
const PackedKernel packed_q5_1 = kKernel<Format::kQ5_1>;
const PackedKernel packed_q8_0 = kKernel<Format::kQ8_0>;
const PackedKernel packed_q2_k = kKernel<Format::kQ2_K>;
const PackedKernel packed_q3_k = kKernel<Format::kQ3_K>;
const PackedKernel packed_q4_k = kKernel<Format::kQ4_K>;
const PackedKernel packed_q5_k = kKernel<Format::kQ5_K>;
const PackedKernel packed_q6_k = kKernel<Format::kQ6_K>;
const PackedKernel packed_iq4_nl = kKernel<Format::kIQ4_NL>;
const PackedKernel packed_iq4_xs = kKernel<Format::kIQ4_XS>;
const PackedKernel packed_mxfp4 = kKernel<Format::kMXFP4>;
const PackedKernel packed_tq1_0 = kKernel<Format::kTQ1_0>;
const PackedKernel packed_tq2_0 = kKernel<Format::kTQ2_0>;

}  // namespace narrow::kernels::generic

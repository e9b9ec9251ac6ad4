#include "ops/weight.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow::ops {
namespace {

// Stored bytes that are packed before they are given back.
constexpr std::size_t kStepBytes = std::size_t{4} << 20;

// Rows of a dense panel as codes: int8 per row, scale absmax / 127.
void pack_dense(const Weight& w, std::int64_t begin, std::int64_t rows, float* values, std::int8_t* codes,
                std::byte* panel) {
  const std::int64_t k = w.k();
  float scales[kernels::kDenseInt8PanelRows];
  const DecodeRow decode = format_info(w.stored.format).decode;
  for (std::int64_t r = 0; r < rows; ++r) {
    decode(w.stored.row(begin + r), values, k);
    float absmax = 0.0f;
    bool finite = true;
    for (std::int64_t i = 0; i < k; ++i) {
      absmax = std::max(absmax, std::abs(values[i]));
      finite = finite && std::isfinite(values[i]);
    }
    const float inverse = 127.0f / absmax;
    const bool usable = finite && absmax > 0.0f && std::isfinite(inverse);
    // What is not finite shows in every product of the row.
    scales[r] = !finite ? std::numeric_limits<float>::quiet_NaN() : usable ? absmax / 127.0f : 0.0f;
    for (std::int64_t i = 0; i < k; ++i) {
      codes[r * k + i] =
          usable ? static_cast<std::int8_t>(std::nearbyint(values[i] * inverse)) : std::int8_t{0};
    }
  }
  w.dense->pack(codes, k, scales, nullptr, rows, k, panel);
}

}  // namespace

const kernels::PackedKernel* packed_kernel(Format format) {
  const auto id = static_cast<std::size_t>(format);
  return id < kernels::kVecDotSlots ? kernels::kernels().packed[id] : nullptr;
}

std::size_t Weight::panel_bytes() const {
  return dense != nullptr ? dense->panel_bytes(k()) : kernel->panel_bytes(k());
}

std::int64_t Weight::panel_rows() const {
  return dense != nullptr ? kernels::kDenseInt8PanelRows : kernels::kernels().panel_rows;
}

void PackedWeights::choose(Weight& weight, const PackAs& as) {
  const bool fits = weight.k() <= kernels::kMaxDenseAsymmetricRows;
  if (as.dense && fits && format_info(weight.stored.format).decode != nullptr) {
    weight.dense = kernels::kernels().dense_int8;
    weight.scheme = as.scheme;
  } else {
    weight.kernel = packed_kernel(weight.stored.format);
  }
}

std::vector<std::size_t> PackedWeights::reserve(const std::vector<Weight*>& weights) {
  std::vector<std::size_t> offsets;
  std::size_t total = 0;
  for (const Weight* w : weights) {
    offsets.push_back(total);
    if (w->kernel == nullptr && w->dense == nullptr) continue;
    total += static_cast<std::size_t>(panel_count(*w)) * w->panel_bytes();
  }
  panels_ = HugeBuffer(total);
  return offsets;
}

std::int64_t PackedWeights::panel_count(const Weight& w) {
  return (w.n() + w.panel_rows() - 1) / w.panel_rows();
}

std::int64_t PackedWeights::pack_some(const Weight& weight, std::size_t offset, std::int64_t first) {
  const std::int64_t panel_rows = weight.panel_rows(), k = weight.k();
  const std::size_t panel_bytes = weight.panel_bytes(), stride = weight.stored.stride_bytes();
  const auto step = std::max<std::int64_t>(1, static_cast<std::int64_t>(kStepBytes / stride) / panel_rows);
  const std::int64_t count = std::min(step, panel_count(weight) - first);
  parallel_for(count, [&](std::int64_t i, int) {
    const std::int64_t p = first + i, begin = p * panel_rows, rows = std::min(panel_rows, weight.n() - begin);
    std::byte* panel = panels_.data() + offset + static_cast<std::size_t>(p) * panel_bytes;
    if (weight.dense == nullptr) {
      weight.kernel->pack(weight.stored.row(begin), stride, rows, k, panel);
      return;
    }
    std::vector<float> values(static_cast<std::size_t>(k));
    std::vector<std::int8_t> codes(static_cast<std::size_t>(k * rows));
    pack_dense(weight, begin, rows, values.data(), codes.data(), panel);
  });
  return first + count;
}

}  // namespace narrow::ops

#include "ops/weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow::ops {
namespace {

// Stored bytes that are packed before they are given back.
constexpr std::size_t kStepBytes = std::size_t{4} << 20;
constexpr std::int64_t kRowsPerItem = 16;

// The codes and scales of rows of a dense weight: as stored, or absmax / 127 of what the outlier columns
// leave.
void dense_codes(const Weight& w, std::int64_t begin, std::int64_t rows, std::int8_t* codes, float* scales) {
  const std::int64_t k = w.k();
  if (w.code_scales != nullptr) {
    std::memcpy(codes, w.stored.row(begin), static_cast<std::size_t>(rows * k));
    std::copy_n(w.code_scales + begin, rows, scales);
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(k));
  const DecodeRow decode = format_info(w.stored.format).decode;
  for (std::int64_t r = 0; r < rows; ++r) {
    decode(w.stored.row(begin + r), values.data(), k);
    for (std::int64_t i = 0; i < w.n_outliers; ++i) values[static_cast<std::size_t>(w.outliers[i])] = 0.0f;
    float absmax = 0.0f;
    bool finite = true;
    for (const float v : values) {
      absmax = std::max(absmax, std::abs(v));
      finite = finite && std::isfinite(v);
    }
    const float scale = finite ? kernels::dense_int8_scale(absmax / 127.0f) : 0.0f;
    const float inverse = 1.0f / scale;
    const bool usable = finite && scale > 0.0f && std::isfinite(inverse);
    // What is not finite shows in every product of the row.
    scales[r] = !finite ? std::numeric_limits<float>::quiet_NaN() : usable ? scale : 0.0f;
    for (std::int64_t i = 0; i < k; ++i) {
      codes[r * k + i] =
          usable ? static_cast<std::int8_t>(std::nearbyint(values[static_cast<std::size_t>(i)] * inverse))
                 : std::int8_t{0};
    }
  }
}

void pack_dense(const Weight& w, std::int64_t begin, std::int64_t rows, std::byte* panel) {
  float scales[kernels::kDenseInt8PanelRows];
  std::vector<std::int8_t> codes(static_cast<std::size_t>(w.k() * rows));
  dense_codes(w, begin, rows, codes.data(), scales);
  w.dense->pack(codes.data(), w.k(), scales, nullptr, rows, w.k(), panel);
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
  const bool decodes = format_info(weight.stored.format).decode != nullptr;
  if (weight.code_scales != nullptr || (as.dense && fits && decodes)) {
    weight.dense = kernels::kernels().dense_int8;
  } else {
    weight.kernel = packed_kernel(weight.stored.format);
  }
}

std::size_t PackedWeights::bytes() const {
  std::size_t total = panels_.size();
  for (const AlignedBuffer<float>& v : values_) total += v.size() * sizeof(float);
  return total;
}

void PackedWeights::add_outliers(Weight& w) {
  if (w.n_outliers == 0 || (w.dense == nullptr && w.kernel == nullptr)) return;
  const std::int64_t n = w.n();
  const bool apart = !w.outlier_stored.empty();
  const TensorView& from = apart ? w.outlier_stored : w.stored;
  AlignedBuffer<float>& rows = values_.emplace_back(static_cast<std::size_t>(w.n_outliers * n));
  const DecodeRow decode = format_info(from.format).decode;
  parallel_for((n + kRowsPerItem - 1) / kRowsPerItem, [&](std::int64_t item, int) {
    std::vector<float> values(static_cast<std::size_t>(from.shape.row_length()));
    const std::int64_t end = std::min(n, (item + 1) * kRowsPerItem);
    for (std::int64_t r = item * kRowsPerItem; r < end; ++r) {
      decode(from.row(r), values.data(), from.shape.row_length());
      for (std::int64_t c = 0; c < w.n_outliers; ++c) {
        rows.data()[c * n + r] = values[static_cast<std::size_t>(apart ? c : w.outliers[c])];
      }
    }
  });
  w.outlier_rows = rows.data();
}

void PackedWeights::simulate(Weight& w) {
  if (w.dense == nullptr && (w.kernel == nullptr || !w.row_scale)) {
    w.kernel = nullptr;
    return;
  }
  const std::int64_t n = w.n(), k = w.k();
  AlignedBuffer<float>& all = values_.emplace_back(static_cast<std::size_t>(n * k));
  const DecodeRow decode = format_info(w.stored.format).decode;
  parallel_for((n + kRowsPerItem - 1) / kRowsPerItem, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kRowsPerItem, rows = std::min(kRowsPerItem, n - begin);
    float* out = all.data() + begin * k;
    if (w.dense == nullptr) {
      for (std::int64_t r = 0; r < rows; ++r) decode(w.stored.row(begin + r), out + r * k, k);
      return;
    }
    std::vector<std::int8_t> codes(static_cast<std::size_t>(rows * k));
    float scales[kRowsPerItem];
    dense_codes(w, begin, rows, codes.data(), scales);
    for (std::int64_t i = 0; i < rows * k; ++i) {
      out[i] = scales[i / k] * static_cast<float>(codes[static_cast<std::size_t>(i)]);
    }
  });
  w.simulated = all.data();
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
    pack_dense(weight, begin, rows, panel);
  });
  return first + count;
}

}  // namespace narrow::ops

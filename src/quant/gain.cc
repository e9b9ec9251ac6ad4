#include "quant/gain.h"

#include <algorithm>
#include <cmath>

#include "base/aligned_buffer.h"
#include "ops/cholesky.h"
#include "ops/gram.h"

namespace narrow::quant {

Status GainFit::add(const float* exact, const float* stored, std::int64_t n) {
  const auto size = static_cast<std::size_t>(k_ * k_);
  left_.resize(size, 0.0f);
  right_.resize(static_cast<std::size_t>(k_), 0.0f);
  AlignedBuffer<float> product(size);
  std::fill_n(product.data(), size, 0.0f);
  NARROW_TRY(ops::add_gram({stored, n, k_}, product.data()));
  ops::fill_upper(k_, product.data());
  for (std::size_t i = 0; i < size; ++i) left_[i] += product[i] * hessian_[i];
  std::fill_n(product.data(), size, 0.0f);
  NARROW_TRY(ops::add_cross({stored, n, k_}, {exact, n, k_}, product.data()));
  const std::span<const float> c = cross_.empty() ? hessian_ : cross_;
  for (std::int64_t i = 0; i < k_; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < k_; ++j) {
      sum += static_cast<double>(product[static_cast<std::size_t>(i * k_ + j)]) *
             static_cast<double>(c[static_cast<std::size_t>(j * k_ + i)]);
    }
    right_[static_cast<std::size_t>(i)] += static_cast<float>(sum);
  }
  return {};
}

Result<std::vector<float>> GainFit::solve(float damping) const {
  std::vector<float> s(static_cast<std::size_t>(k_), 1.0f);
  if (left_.empty()) return s;
  // In terms of s - 1, which the damping pulls towards 0.
  std::vector<float> system = left_, change(s.size());
  double mean = 0;
  for (std::int64_t i = 0; i < k_; ++i) {
    const auto at = static_cast<std::size_t>(i * k_ + i);
    mean += static_cast<double>(left_[at]) / static_cast<double>(k_);
  }
  if (!(mean > 0) || !std::isfinite(mean)) return s;
  for (std::int64_t i = 0; i < k_; ++i) {
    double row = 0;
    for (std::int64_t j = 0; j < k_; ++j)
      row += static_cast<double>(left_[static_cast<std::size_t>(i * k_ + j)]);
    change[static_cast<std::size_t>(i)] =
        static_cast<float>(static_cast<double>(right_[static_cast<std::size_t>(i)]) - row);
    float& d = system[static_cast<std::size_t>(i * k_ + i)];
    d += damping * d + 1e-3f * static_cast<float>(mean);
  }
  if (!ops::solve_rows(k_, system.data(), 1, change.data()).ok()) return s;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (std::isfinite(change[i])) s[i] = std::clamp(1.0f + change[i], 0.5f, 2.0f);
  }
  return s;
}

std::vector<float> bias_correction(const float* exact, const float* stored, std::int64_t n, std::int64_t k,
                                   std::span<const float> mean_original,
                                   std::span<const float> mean_quantized) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::int64_t r = 0; r < n; ++r) {
    double sum = 0;
    for (std::int64_t j = 0; j < k; ++j) {
      const auto at = static_cast<std::size_t>(j);
      sum += static_cast<double>(exact[r * k + j]) * static_cast<double>(mean_original[at]) -
             static_cast<double>(stored[r * k + j]) * static_cast<double>(mean_quantized[at]);
    }
    out[static_cast<std::size_t>(r)] = static_cast<float>(sum);
  }
  return out;
}

}  // namespace narrow::quant

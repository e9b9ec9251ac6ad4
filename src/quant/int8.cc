#include "quant/int8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "base/thread_team.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kRowsPerItem = 16;
constexpr std::array kWeightFractions = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f, 0.65f, 0.6f};

float rounded(float x, float inverse) { return std::clamp(std::nearbyint(x * inverse), -127.0f, 127.0f); }

// Squared error of a row's codes at this scale.
double row_error(const float* x, std::int64_t k, std::span<const float> weight, float scale) {
  const float inverse = 1.0f / scale;
  double sum = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    const double e = static_cast<double>(x[i]) - static_cast<double>(scale * rounded(x[i], inverse));
    sum += (weight.empty() ? 1.0 : static_cast<double>(weight[static_cast<std::size_t>(i)])) * e * e;
  }
  return sum;
}

// A static scale may leave room above what was seen as long as rounding stays below so much noise.
constexpr double kStaticNoise = 5e-4;

bool usable(float scale) { return scale > 0.0f && std::isfinite(1.0f / scale); }

float row_scale(const float* x, std::int64_t k, std::span<const float> weight, bool search) {
  float absmax = 0.0f;
  for (std::int64_t i = 0; i < k; ++i) absmax = std::max(absmax, std::abs(x[i]));
  const float plain = kernels::dense_int8_scale(absmax / 127.0f);
  if (!usable(plain)) return 0.0f;
  if (!search) return plain;
  float best = plain;
  double least = std::numeric_limits<double>::infinity();
  for (const float f : kWeightFractions) {
    const float scale = kernels::dense_int8_scale(f * absmax / 127.0f);
    if (!usable(scale)) continue;
    const double e = row_error(x, k, weight, scale);
    if (e < least) {
      least = e;
      best = scale;
    }
  }
  return best;
}

// Of one scale for all rows, relative to each row's energy; the mean over rows.
double rounding_noise(ops::ConstMatrix x, float scale) {
  const double each = static_cast<double>(scale) * static_cast<double>(scale) / 12;
  double sum = 0;
  std::int64_t rows = 0;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double energy = 0;
    for (std::int64_t i = 0; i < x.cols; ++i) {
      energy += static_cast<double>(x.row(r)[i]) * static_cast<double>(x.row(r)[i]);
    }
    if (!(energy > 0) || !std::isfinite(energy)) continue;
    sum += each * static_cast<double>(x.cols) / energy;
    ++rows;
  }
  return rows > 0 ? sum / static_cast<double>(rows) : 0;
}

}  // namespace

Status quantize_int8_rows(const float* w, std::int64_t n, std::int64_t k,
                          std::span<const std::int32_t> outliers, std::span<const float> mean_square,
                          bool search, std::int8_t* codes, float* scales, WeightError* error) {
  const std::int64_t bad = find_non_finite(w, n * k);
  if (bad >= 0) {
    return make_error(ErrorCode::kNumeric, "int8: the weight at [{}, {}] is {}", bad / k, bad % k, w[bad]);
  }
  const std::int64_t items = (n + kRowsPerItem - 1) / kRowsPerItem;
  std::vector<WeightError> errors(static_cast<std::size_t>(items));
  parallel_for(items, [&](std::int64_t item, int) {
    std::vector<float> row(static_cast<std::size_t>(k)), back(row.size());
    const std::int64_t end = std::min(n, (item + 1) * kRowsPerItem);
    for (std::int64_t r = item * kRowsPerItem; r < end; ++r) {
      std::copy(w + r * k, w + (r + 1) * k, row.begin());
      for (const std::int32_t c : outliers) row[static_cast<std::size_t>(c)] = 0.0f;
      const float scale = row_scale(row.data(), k, mean_square, search);
      const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
      scales[r] = scale;
      for (std::int64_t i = 0; i < k; ++i) {
        const float code = rounded(row[static_cast<std::size_t>(i)], inverse);
        codes[r * k + i] = static_cast<std::int8_t>(code);
        back[static_cast<std::size_t>(i)] = scale * code;
      }
      errors[static_cast<std::size_t>(item)].add_values(row.data(), back.data(), k);
    }
  });
  if (error != nullptr) {
    for (const WeightError& e : errors) error->add(e);
  }
  return {};
}

float static_scale(ops::ConstMatrix x, std::span<const float> abs_max, std::span<const std::int32_t> outliers,
                   const Room& room) {
  std::vector<float> left(abs_max.begin(), abs_max.end());
  for (const std::int32_t c : outliers) left[static_cast<std::size_t>(c)] = 0.0f;
  float largest = 0.0f;
  for (const float v : left) largest = std::max(largest, v);
  if (!usable(largest / 127.0f)) return kernels::dense_int8_scale(1.0f / 127.0f);
  const float scale = kernels::dense_int8_scale(largest / 127.0f);
  const double noise = rounding_noise(x, scale);
  const double wider = noise > 0 ? std::sqrt(kStaticNoise / noise) : 1.0;
  return kernels::dense_int8_scale(scale * static_cast<float>(std::clamp(wider, room.least, room.most)));
}

}  // namespace narrow::quant

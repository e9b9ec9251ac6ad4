#include "quant/autoround.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/scalar.h"
#include "base/thread_team.h"
#include "formats/grid.h"
#include "ops/gemm.h"
#include "quant/rows.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kRows = 32;  // of a work item
// The paper takes 200 steps on samples of the data; the Hessian holds all of it, and half as many do.
constexpr int kSteps = 100;
// First steps of offsets and factors; steps fall linearly to 0. Signs are those of a running mean of the
// gradients: signs of single ones flip all weights of correlated inputs back and forth. Tuned on one layer of
// SmolLM2 in q4_0: offsets may then move a quarter of a step of the grid in all.
constexpr float kOffsetStep = 0.5f / kSteps;
constexpr float kFactorStep = 0.2f / kSteps;
constexpr float kMomentum = 0.9f;
constexpr float kMostFactor = 1.25f, kLeastFactor = 0.75f;

// One row while it is learned. Values: factor * scale * level + min_factor * min.
struct Row {
  std::vector<std::byte> first;           // as the encoder stores it
  std::vector<float> scale, min;          // of groups
  std::vector<float> factor, min_factor;  // of blocks
  std::vector<float> offset;              // of weights, in steps of the grid
  std::vector<float> slope;               // running mean of what raises each value
  std::vector<float> best_factor, best_min_factor, best_offset;
  double best = 0;
};

// Buffers of one thread.
struct Work {
  AlignedBuffer<float> d, hd, values, steps;
  std::vector<std::uint8_t> codes;
  std::vector<Row> rows;
};

class Learner {
 public:
  Learner(Format format, std::int64_t k, std::span<const float> hessian, const float* damped,
          const EncodeOptions& options)
      : info_(format_info(format)),
        codec_(*formats::grid_codec(format)),
        k_(k),
        hessian_(hessian),
        damped_(damped),
        options_(options) {}

  Status encode(const float* w, std::int64_t rows, std::byte* dst, Work& t) const {
    for (auto* b : {&t.d, &t.hd, &t.values, &t.steps})
      b->reserve_at_least(static_cast<std::size_t>(kRows * k_));
    t.codes.resize(static_cast<std::size_t>(k_));
    t.rows.resize(static_cast<std::size_t>(rows));
    const std::size_t stride = row_bytes(info_.format, k_);
    for (std::int64_t r = 0; r < rows; ++r) start(w + r * k_, t.rows[static_cast<std::size_t>(r)]);
    for (int step = 0; step <= kSteps; ++step) {
      NARROW_TRY(descend(w, rows, 1.0f - static_cast<float>(step) / kSteps, t));
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      Row& row = t.rows[static_cast<std::size_t>(r)];
      store(w + r * k_, row, dst + static_cast<std::size_t>(r) * stride, t);
    }
    return keep_better(w, rows, dst, t);
  }

 private:
  void start(const float* w, Row& row) const {
    const std::int64_t block = info_.block_size, blocks = k_ / block;
    const auto groups = static_cast<std::size_t>(k_ / codec_.group);
    row.first.resize(row_bytes(info_.format, k_));
    info_.encode(w, row.first.data(), k_, options_);
    row.scale.resize(groups);
    row.min.resize(groups);
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t g = b * (block / codec_.group);
      formats::read_grid(info_.format, row.first.data() + b * info_.block_bytes, row.scale.data() + g,
                         row.min.data() + g);
    }
    row.factor.assign(static_cast<std::size_t>(blocks), 1.0f);
    row.min_factor.assign(row.factor.size(), 1.0f);
    row.offset.assign(static_cast<std::size_t>(k_), 0.0f);
    row.slope.assign(row.offset.size(), 0.0f);
    row.best = std::numeric_limits<double>::infinity();
  }

  // Codes, values and the width of a step for every weight of a group.
  void round_group(const float* w, const float* offset, std::int64_t n, float scale, float min, float* values,
                   float* steps, std::uint8_t* codes) const {
    const float* levels = codec_.levels.data();
    const auto last = static_cast<int>(codec_.levels.size()) - 1;
    float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    if (!std::isfinite(inverse)) inverse = 0.0f;
    for (std::int64_t i = 0; i < n; ++i) {
      const float x = (w[i] - min) * inverse;
      if (codec_.uniform) {
        const float c = std::clamp(std::nearbyint(x + offset[i] - levels[0]), 0.0f, static_cast<float>(last));
        codes[i] = static_cast<std::uint8_t>(c);
        values[i] = scale * (levels[0] + c) + min;
        steps[i] = scale;
        continue;
      }
      int below = 0;  // the interval of levels that x lies in
      while (below + 2 <= last && x >= levels[below + 1]) ++below;
      const float gap = levels[below + 1] - levels[below], at = x + offset[i] * gap;
      int c = 0;
      while (c < last && at > 0.5f * (levels[c] + levels[c + 1])) ++c;
      codes[i] = static_cast<std::uint8_t>(c);
      values[i] = scale * levels[c] + min;
      steps[i] = scale * gap;
    }
  }

  void round_row(const float* w, const Row& row, const std::vector<float>& offset, float* values,
                 float* steps, std::uint8_t* codes, const std::vector<float>& factor,
                 const std::vector<float>& min_factor) const {
    const std::int64_t group = codec_.group, per_block = info_.block_size / group;
    for (std::int64_t g = 0; g < k_ / group; ++g) {
      const auto at = static_cast<std::size_t>(g), b = static_cast<std::size_t>(g / per_block);
      round_group(w + g * group, offset.data() + g * group, group, row.scale[at] * factor[b],
                  row.min[at] * min_factor[b], values + g * group, steps + g * group, codes + g * group);
    }
  }

  // One step of all rows, which also judges where they are.
  Status descend(const float* w, std::int64_t rows, float rate, Work& t) const {
    for (std::int64_t r = 0; r < rows; ++r) {
      const Row& row = t.rows[static_cast<std::size_t>(r)];
      float* values = t.values.data() + r * k_;
      round_row(w + r * k_, row, row.offset, values, t.steps.data() + r * k_, t.codes.data(), row.factor,
                row.min_factor);
      for (std::int64_t j = 0; j < k_; ++j)
        t.d[static_cast<std::size_t>(r * k_ + j)] = w[r * k_ + j] - values[j];
    }
    NARROW_TRY(ops::gemm_f32_single(false, rows, k_, k_, 1.0f, t.d.data(), k_, damped_, k_, t.hd.data(), k_));
    for (std::int64_t r = 0; r < rows; ++r) {
      Row& row = t.rows[static_cast<std::size_t>(r)];
      const float *d = t.d.data() + r * k_, *hd = t.hd.data() + r * k_;
      const double loss = dot(d, hd, k_);
      if (loss < row.best) {
        row.best = loss;
        row.best_offset = row.offset;
        row.best_factor = row.factor;
        row.best_min_factor = row.min_factor;
      }
      const float *values = t.values.data() + r * k_, *steps = t.steps.data() + r * k_;
      float *mean = row.slope.data(), *offset = row.offset.data();
      const float step = rate * kOffsetStep;
      // The loss falls where a value grows along hd = H (w - y).
      for (std::int64_t j = 0; j < k_; ++j) {
        mean[j] = kMomentum * mean[j] + (1.0f - kMomentum) * hd[j];
        const float slope = mean[j] * steps[j];
        const float sign = static_cast<float>(slope > 0) - static_cast<float>(slope < 0);
        offset[j] = std::clamp(offset[j] + step * sign, -0.5f, 0.5f);
      }
      if (codec_.d_offset >= 0) move_factors(hd, values, rate, row);
    }
    return {};
  }

  void move_factors(const float* hd, const float* values, float rate, Row& row) const {
    const std::int64_t block = info_.block_size, group = codec_.group;
    for (std::int64_t b = 0; b < k_ / block; ++b) {
      const auto at = static_cast<std::size_t>(b);
      double by_min = 0;
      for (std::int64_t g = b * block / group; g < (b + 1) * block / group; ++g) {
        float sum = 0;
        for (std::int64_t j = g * group; j < (g + 1) * group; ++j) sum += hd[j];
        by_min += static_cast<double>(sum * row.min[static_cast<std::size_t>(g)] * row.min_factor[at]);
      }
      const double by_scale = dot(hd + b * block, values + b * block, block) - by_min;
      const auto step = [&](double slope, float& f) {
        if (slope == 0) return;
        f = std::clamp(f + std::copysign(rate * kFactorStep, static_cast<float>(slope)), kLeastFactor,
                       kMostFactor);
      };
      step(by_scale, row.factor[at]);
      if (codec_.dmin_offset >= 0) step(by_min, row.min_factor[at]);
    }
  }

  // The best step's codes on its scales, as f16 holds them.
  void store(const float* w, Row& row, std::byte* dst, Work& t) const {
    std::memcpy(dst, row.first.data(), row.first.size());
    const std::int64_t block = info_.block_size, blocks = k_ / block;
    const auto scale_by = [&](std::byte* at, float f) {
      f16 v;
      std::memcpy(&v, at, sizeof(v));
      const f16 scaled = to_f16(to_f32(v) * f);
      if (std::isfinite(to_f32(scaled))) std::memcpy(at, &scaled, sizeof(scaled));
    };
    for (std::int64_t b = 0; b < blocks; ++b) {
      std::byte* at = dst + b * info_.block_bytes;
      const std::int64_t g = b * (block / codec_.group);
      if (codec_.d_offset >= 0) scale_by(at + codec_.d_offset, row.best_factor[static_cast<std::size_t>(b)]);
      if (codec_.dmin_offset >= 0)
        scale_by(at + codec_.dmin_offset, row.best_min_factor[static_cast<std::size_t>(b)]);
      formats::read_grid(info_.format, at, row.scale.data() + g, row.min.data() + g);
    }
    const std::vector<float> ones(static_cast<std::size_t>(blocks), 1.0f);
    round_row(w, row, row.best_offset, t.values.data(), t.steps.data(), t.codes.data(), ones, ones);
    for (std::int64_t b = 0; b < blocks; ++b)
      codec_.write(dst + b * info_.block_bytes, t.codes.data() + b * block);
  }

  // Undamped errors of the rows as they are stored.
  Result<std::vector<double>> stored_errors(const float* w, std::int64_t rows, const std::byte* stored,
                                            std::size_t stride, Work& t) const {
    for (std::int64_t r = 0; r < rows; ++r) {
      float* d = t.d.data() + r * k_;
      info_.decode(stored + static_cast<std::size_t>(r) * stride, d, k_);
      for (std::int64_t j = 0; j < k_; ++j) d[j] = w[r * k_ + j] - d[j];
    }
    NARROW_TRY(ops::gemm_f32_single(false, rows, k_, k_, 1.0f, t.d.data(), k_, hessian_.data(), k_,
                                    t.hd.data(), k_));
    std::vector<double> errors;
    for (std::int64_t r = 0; r < rows; ++r)
      errors.push_back(dot(t.d.data() + r * k_, t.hd.data() + r * k_, k_));
    return errors;
  }

  Status keep_better(const float* w, std::int64_t rows, std::byte* dst, Work& t) const {
    const std::size_t stride = row_bytes(info_.format, k_);
    std::vector<std::byte> first(static_cast<std::size_t>(rows) * stride);
    for (std::int64_t r = 0; r < rows; ++r) {
      std::memcpy(first.data() + static_cast<std::size_t>(r) * stride,
                  t.rows[static_cast<std::size_t>(r)].first.data(), stride);
    }
    NARROW_ASSIGN(const std::vector<double> learned, stored_errors(w, rows, dst, stride, t));
    NARROW_ASSIGN(const std::vector<double> nearest, stored_errors(w, rows, first.data(), stride, t));
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
      if (learned[r] < nearest[r]) continue;
      std::memcpy(dst + r * stride, first.data() + r * stride, stride);
    }
    return {};
  }

  static double dot(const float* a, const float* b, std::int64_t n) {
    constexpr int kLanes = 8;
    double lanes[kLanes] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (int l = 0; l < kLanes; ++l)
        lanes[l] += static_cast<double>(a[i + l]) * static_cast<double>(b[i + l]);
    }
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    for (; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return sum;
  }

  const FormatInfo& info_;
  const formats::GridCodec& codec_;
  std::int64_t k_;
  std::span<const float> hessian_;
  const float* damped_;
  EncodeOptions options_;
};

}  // namespace

Status quantize_autoround(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                          const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  NARROW_TRY(check_matrix("autoround", spec.format, n, k, stats));
  if (formats::grid_codec(spec.format) == nullptr) {
    return make_error(ErrorCode::kUnsupported, "autoround: {} has no codes that can be chosen one by one",
                      format_info(spec.format).name);
  }
  if (stats.hessian.empty() && k > 0) {
    return make_error(ErrorCode::kInvalidArgument, "autoround: it needs the Hessian of the inputs");
  }
  AlignedBuffer<float> damped(static_cast<std::size_t>(k * k));
  std::copy(stats.hessian.begin(), stats.hessian.end(), damped.data());
  std::vector<float> diagonal;
  for (std::int64_t j = 0; j < k; ++j) {
    float& d = damped[static_cast<std::size_t>(j * k + j)];
    diagonal.push_back(d);
    d *= 1.0f + (spec.damping > 0 ? spec.damping : kRoundingDamping);
  }
  EncodeOptions options;
  options.search = spec.search;
  options.importance = stats.mean_square.empty() ? diagonal.data() : stats.mean_square.data();
  const Learner learner(spec.format, k, stats.hessian, damped.data(), options);
  std::vector<Work> work(static_cast<std::size_t>(thread_count()));
  const auto encode = [&](const float* rows, std::int64_t count, std::byte* dst, int thread) {
    return learner.encode(rows, count, dst, work[static_cast<std::size_t>(thread)]);
  };
  return encode_stretches(w, n, k, spec.format, stats.output, kRows, encode, out, error);
}

}  // namespace narrow::quant

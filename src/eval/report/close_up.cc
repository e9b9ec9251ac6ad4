#include <algorithm>
#include <cmath>

#include "eval/divergence.h"
#include "eval/report/row_error.h"
#include "eval/report/weights.h"
#include "kernels/packed/stored.h"

namespace narrow::eval::report {
namespace {

namespace packed = kernels::packed;

constexpr int kBins = 96, kLevelBins = 8;  // of a histogram; per level
constexpr std::int64_t kRows = 4096;       // evenly spaced ones of larger tensors
constexpr double kDeviations = 4.5;        // shown to either side of 0
constexpr int kQuantiles = 200;

// Where value falls among equal bins; values outside fall into the first and last.
void count(Histogram& h, double value) {
  const auto bins = static_cast<double>(h.counts.size());
  const double at = (value - h.low) / (h.high - h.low) * bins;
  ++h.counts[static_cast<std::size_t>(std::clamp(at, 0.0, bins - 1))];
}

Histogram make_histogram(double low, double high, int bins) {
  return {low, high, std::vector<std::uint64_t>(static_cast<std::size_t>(bins))};
}

const packed::Layout* layout_of(Format format) {
  for (const packed::Layout& l : packed::kLayouts) {
    if (l.format == format) return &l;
  }
  return nullptr;
}

// S and M of one run of a unit: real = S * (level - offset) - M.
struct Scale {
  double s = 0, m = 0;
};
Scale scale_of(const packed::Layout& l, const packed::StoredUnit& unit, int run) {
  if (l.exponent()) return {0.5 * static_cast<double>(e8m0_to_f32(unit.values[0])), 0};  // levels are doubled
  Scale r{static_cast<double>(to_f32(unit.halves[0])), 0};
  const bool super = l.values > 0;
  if (super) {
    const int value = l.value_bits == 8 ? static_cast<std::int8_t>(unit.values[run]) : unit.values[run];
    r.s *= value - l.value_offset;
  }
  if (l.minima) {
    const auto second = static_cast<double>(to_f32(unit.halves[1]));
    r.m = super ? second * unit.values[l.values / 2 + run] : -second;  // q4_1 and q5_1 add their min
  }
  return r;
}

double level_of(const packed::Layout& l, std::uint8_t code) {
  switch (l.levels) {
    case packed::Levels::kNonLinear:
      return packed::kNonLinear[code] + l.offset;
    case packed::Levels::kE2M1:
      return packed::kE2M1[code] + l.offset;
    case packed::Levels::kNone:
      break;
  }
  return code;
}

struct Units {
  std::vector<double> scales;  // |S| above 0
  std::vector<std::uint64_t> codes = std::vector<std::uint64_t>(256);
  Histogram in_levels;
};

void add_row(const packed::Layout& l, const std::byte* stored, const float* exact, std::int64_t k,
             Units& out) {
  packed::StoredUnit unit{};
  for (std::int64_t u = 0; u < k / l.unit; ++u) {
    packed::read_unit(l.format, stored, u, unit);
    for (int run = 0; run < l.unit / l.run; ++run) {
      const Scale scale = scale_of(l, unit, run);
      if (scale.s != 0) out.scales.push_back(std::fabs(scale.s));
      for (int i = run * l.run; i < (run + 1) * l.run; ++i) {
        ++out.codes[unit.codes[i]];
        if (scale.s == 0) continue;
        count(out.in_levels, (static_cast<double>(exact[u * l.unit + i]) + scale.m) / scale.s + l.offset);
      }
    }
  }
}

void fill_levels(const packed::Layout& l, const Units& units, CloseUp& c) {
  c.in_levels = units.in_levels;
  // Two codes may mean the same (0 and -0).
  std::vector<std::pair<double, std::uint64_t>> levels;
  for (int code = 0; code < 1 << l.bits; ++code) {
    levels.emplace_back(level_of(l, static_cast<std::uint8_t>(code)),
                        units.codes[static_cast<std::size_t>(code)]);
  }
  std::sort(levels.begin(), levels.end());
  for (const auto& [level, n] : levels) {
    if (!c.levels.empty() && c.levels.back() == level) {
      c.level_counts.back() += n;
    } else {
      c.levels.push_back(level);
      c.level_counts.push_back(n);
    }
  }
  if (units.scales.empty()) return;
  std::vector<double> logs;
  for (const double s : units.scales) logs.push_back(std::log10(s));
  const double low = quantile(logs, 0.001), high = quantile(logs, 0.999);
  c.scales = make_histogram(low - 0.05, high + 0.05, kBins);
  for (const double x : logs) count(c.scales, x);
}

std::vector<double> quantiles(std::span<const float> values, bool root) {
  std::vector<double> sorted(values.begin(), values.end());
  if (root) {
    for (double& v : sorted) v = std::sqrt(std::fmax(v, 0.0));
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> out;
  for (int i = 0; i <= kQuantiles && !sorted.empty(); ++i) {
    out.push_back(sorted[static_cast<std::size_t>(i) * (sorted.size() - 1) / kQuantiles]);
  }
  return out;
}

}  // namespace

Result<CloseUp> close_up(const model::ModelSource& model, const model::ModelSource& reference,
                         const std::string& tensor, const StatisticsOf& statistics) {
  const auto at = model.find(tensor);
  if (!at) {
    return make_error(ErrorCode::kNotFound, "{}: no tensor '{}'; `narrow inspect` lists them",
                      model.path().string(), tensor);
  }
  const TensorInfo& t = model.tensors()[*at];
  NARROW_ASSIGN(const std::size_t other, counterpart(model, t, reference));
  const std::int64_t k = t.shape.row_length(), n = t.shape.rows(), rows = std::min(n, kRows);
  CloseUp c;
  c.tensor = tensor;
  c.type = t.format;

  std::vector<float> exact(static_cast<std::size_t>(rows * k)), mine(static_cast<std::size_t>(k));
  double squares = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    float* row = exact.data() + i * k;
    const std::int64_t r = i * n / rows;
    NARROW_TRY(reference.read_f32(other, r, r + 1, row));
    for (std::int64_t j = 0; j < k; ++j) squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
  }
  double reach = kDeviations * std::sqrt(squares / static_cast<double>(std::max<std::int64_t>(1, rows * k)));
  if (!(reach > 0)) reach = 1;  // all zero
  c.reference = make_histogram(-reach, reach, kBins);
  c.stored = c.reference;

  const packed::Layout* layout = layout_of(t.format);
  Units units;
  if (layout != nullptr) {
    // The levels, and one to either side for what the format cuts off.
    double low = level_of(*layout, 0), high = low;
    for (int code = 0; code < 1 << layout->bits; ++code) {
      low = std::min(low, level_of(*layout, static_cast<std::uint8_t>(code)));
      high = std::max(high, level_of(*layout, static_cast<std::uint8_t>(code)));
    }
    const double edge = std::max(1.0, (high - low) / 16);
    const int bins = std::clamp(static_cast<int>((high - low + 2 * edge) * kLevelBins), 16, 192);
    units.in_levels = make_histogram(low - edge, high + edge, bins);
  }
  std::vector<std::byte> raw(row_bytes(t.format, k));
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row = exact.data() + i * k;
    const std::int64_t r = i * n / rows;
    NARROW_TRY(model.read_f32(*at, r, r + 1, mine.data()));
    for (std::int64_t j = 0; j < k; ++j) {
      count(c.reference, row[j]);
      count(c.stored, mine[static_cast<std::size_t>(j)]);
    }
    if (layout == nullptr) continue;
    NARROW_TRY(model.read_raw(*at, r, r + 1, raw.data()));
    add_row(*layout, raw.data(), row, k, units);
  }
  if (layout != nullptr) fill_levels(*layout, units, c);
  if (statistics) {
    const InputStatistics s = statistics(tensor);
    c.input_rms = quantiles(s.mean_square, true);
    c.input_absmax = quantiles(s.absmax, false);
  }
  return c;
}

}  // namespace narrow::eval::report

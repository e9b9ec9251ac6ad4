#include "formats/affine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/format.h"

namespace narrow::formats {
namespace {

using Params = AffineParams;

// One group of elements that share parameters, and how to code them.
class Group {
 public:
  Group(const AffineSpec& spec, const float* x, std::int64_t n)
      : spec_(spec),
        x_(x),
        n_(n),
        low_(static_cast<float>(affine_code_range(spec).low)),
        high_(static_cast<float>(affine_code_range(spec).high)) {}

  float code(float x, const Params& p) const {
    const float shifted =
        spec_.mapping == AffineMapping::kMin ? (x - p.min) / p.scale : x / p.scale + p.zero_point;
    return std::clamp(std::nearbyint(shifted), low_, high_);
  }

  double squared_error(const Params& p) const {
    double sum = 0;
    for (std::int64_t i = 0; i < n_; ++i) {
      const double real = static_cast<double>(p.scale) * (code(x_[i], p) - p.zero_point) + p.min;
      sum += (x_[i] - real) * (x_[i] - real);
    }
    return sum;
  }

  Params fit() const {
    const auto [lo_at, hi_at] = std::minmax_element(x_, x_ + n_);
    const double lo = *lo_at, hi = *hi_at;
    if (lo == hi) return affine_cover(spec_, lo, hi);
    const Params plain = affine_cover(spec_, lo, hi);
    switch (spec_.range) {
      case AffineRange::kAbsMax:
        return plain;
      case AffineRange::kPercentile:
        return from_percentiles(plain);
      case AffineRange::kLeastSquares:
        return search(lo, hi, plain);
    }
    return plain;
  }

 private:
  // As numpy.percentile: linear between the two nearest ranks.
  static double percentile(const std::vector<float>& sorted, double p) {
    const double rank = p / 100.0 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(rank);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    const double t = rank - static_cast<double>(below);
    return sorted[below] + t * (static_cast<double>(sorted[above]) - sorted[below]);
  }

  // A range of zero width (most elements equal) says nothing about the rest: then min and max count.
  Params from_percentiles(const Params& plain) const {
    std::vector<float> sorted(x_, x_ + n_);
    if (spec_.mapping == AffineMapping::kSymmetric) {
      for (float& v : sorted) v = std::fabs(v);
      std::sort(sorted.begin(), sorted.end());
      const double top = percentile(sorted, spec_.percentile);
      return top > 0 ? affine_cover(spec_, -top, top) : plain;
    }
    std::sort(sorted.begin(), sorted.end());
    const double lo = percentile(sorted, 100.0 - spec_.percentile);
    const double hi = percentile(sorted, spec_.percentile);
    return lo < hi ? affine_cover(spec_, lo, hi) : plain;
  }

  // Best parameters for the codes that `p` gives: least squares in S, or in S and min. Z stays.
  Params refit(const Params& p) const {
    double n = 0, q1 = 0, q2 = 0, x1 = 0, qx = 0;
    for (std::int64_t i = 0; i < n_; ++i) {
      const double q = static_cast<double>(code(x_[i], p)) - p.zero_point;
      n += 1;
      q1 += q;
      q2 += q * q;
      x1 += x_[i];
      qx += q * x_[i];
    }
    Params r = p;
    if (spec_.mapping == AffineMapping::kMin) {
      const double determinant = n * q2 - q1 * q1;
      if (determinant <= 0) return p;
      const double scale = (n * qx - q1 * x1) / determinant;
      r.scale = static_cast<float>(scale);
      r.min = static_cast<float>((x1 - scale * q1) / n);
    } else {
      if (q2 <= 0) return p;
      r.scale = static_cast<float>(qx / q2);
    }
    return r.scale > 0 ? r : p;
  }

  // Shrinks the range from both ends together, then each end alone, then alternates codes and least squares.
  Params search(double lo, double hi, const Params& plain) const {
    Params best = plain;
    double best_error = squared_error(plain);
    const auto consider = [&](const Params& p) {
      const double e = squared_error(p);
      if (!(e < best_error)) return false;
      best_error = e;
      best = p;
      return true;
    };
    const bool around_middle = spec_.mapping == AffineMapping::kMin;
    const double centre = around_middle ? 0.5 * (lo + hi) : 0.0;
    const auto shrunk = [&](double keep_lo, double keep_hi) {
      return affine_cover(spec_, centre + keep_lo * (lo - centre), centre + keep_hi * (hi - centre));
    };
    constexpr int kTries = 40;
    constexpr double kStep = 0.02;
    double keep_lo = 1, keep_hi = 1;  // shares of the way from the centre to each end
    for (int t = 1; t < kTries; ++t) {
      const double keep = 1 - kStep * t;
      if (consider(shrunk(keep, keep))) keep_lo = keep_hi = keep;
    }
    if (spec_.mapping != AffineMapping::kSymmetric) {
      constexpr int kAround = 8;
      const double both = keep_lo;
      for (int t = -kAround; t <= kAround; ++t) {
        if (consider(shrunk(both + kStep * t, keep_hi))) keep_lo = both + kStep * t;
      }
      for (int t = -kAround; t <= kAround; ++t) {
        if (consider(shrunk(keep_lo, both + kStep * t))) keep_hi = both + kStep * t;
      }
    }
    constexpr int kMaxRounds = 16;
    for (int round = 0; round < kMaxRounds; ++round) {
      if (!consider(refit(best))) break;
    }
    return best;
  }

  const AffineSpec& spec_;
  const float* x_;
  std::int64_t n_;
  float low_, high_;
};

Status check(const AffineSpec& spec, std::int64_t rows, std::int64_t cols) {
  if (spec.bits < 2 || spec.bits > 8) {
    return make_error(ErrorCode::kInvalidArgument, "affine: {} bits; 2 to 8 are possible", spec.bits);
  }
  if (spec.scope == AffineScope::kGroup && spec.group < 1) {
    return make_error(ErrorCode::kInvalidArgument, "affine: group of {} elements; it needs at least 1",
                      spec.group);
  }
  if (spec.range == AffineRange::kPercentile && !(spec.percentile > 50 && spec.percentile <= 100)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "affine: percentile {}; it must be above 50 and at most 100", spec.percentile);
  }
  if (rows < 0 || cols < 0 || (cols > 0 && rows > std::numeric_limits<std::int64_t>::max() / cols)) {
    return make_error(ErrorCode::kInvalidArgument, "affine: no matrix has {} rows of {} columns", rows, cols);
  }
  return {};
}

}  // namespace

std::size_t AffineQuantized::group_of(std::int64_t row, std::int64_t col) const {
  if (spec.scope == AffineScope::kTensor) return 0;
  const std::int64_t within = spec.scope == AffineScope::kGroup ? col / spec.group : 0;
  return static_cast<std::size_t>(row * groups_per_row + within);
}

CodeRange affine_code_range(const AffineSpec& spec) {
  const int half = 1 << (spec.bits - 1);
  if (spec.mapping != AffineMapping::kSymmetric) return {0, 2 * half - 1};
  return {spec.full_range ? -half : 1 - half, half - 1};
}

AffineParams affine_cover(const AffineSpec& spec, double lo, double hi) {
  const auto safe = [](double s) {
    return std::max(static_cast<float>(s), std::numeric_limits<float>::denorm_min());
  };
  const bool is_constant = lo == hi;
  if (is_constant && lo == 0) return {};
  const CodeRange codes = affine_code_range(spec);
  const double steps = codes.high - codes.low;
  switch (spec.mapping) {
    case AffineMapping::kSymmetric:
      if (is_constant) return {static_cast<float>(std::fabs(lo)), 0, 0};
      return {safe(std::max(std::fabs(lo), std::fabs(hi)) / (0.5 * steps)), 0, 0};
    case AffineMapping::kMin:
      if (is_constant) return {1, 0, static_cast<float>(lo)};
      return {safe((hi - lo) / steps), 0, static_cast<float>(lo)};
    case AffineMapping::kZeroPoint:
      break;
  }
  if (is_constant) return {static_cast<float>(std::fabs(lo)), lo < 0 ? 1.0f : 0.0f, 0};
  lo = std::min(lo, 0.0);
  hi = std::max(hi, 0.0);
  const float scale = safe((hi - lo) / steps);
  const auto low = static_cast<float>(codes.low), high = static_cast<float>(codes.high);
  return {scale, std::clamp(static_cast<float>(std::nearbyint(-lo / scale)), low, high), 0};
}

Result<AffineQuantized> affine_quantize(const float* x, std::int64_t rows, std::int64_t cols,
                                        const AffineSpec& spec) {
  NARROW_TRY(check(spec, rows, cols));
  const std::int64_t n = rows * cols;
  if (const std::int64_t bad = find_non_finite(x, n); bad >= 0) {
    return make_error(ErrorCode::kNumeric, "affine: element [{}, {}] is {}; weights must be finite",
                      bad / cols, bad % cols, x[bad]);
  }
  AffineQuantized out;
  out.spec = spec;
  out.rows = rows;
  out.cols = cols;
  out.codes.resize(static_cast<std::size_t>(n));
  if (n == 0) return out;

  const auto add_group = [&](std::int64_t at, std::int64_t count) {
    const Group group(spec, x + at, count);
    const Params p = group.fit();
    out.scales.push_back(p.scale);
    if (spec.mapping == AffineMapping::kZeroPoint)
      out.zero_points.push_back(static_cast<std::int32_t>(p.zero_point));
    if (spec.mapping == AffineMapping::kMin) out.mins.push_back(p.min);
    for (std::int64_t i = at; i < at + count; ++i) {
      out.codes[static_cast<std::size_t>(i)] =
          static_cast<std::uint8_t>(static_cast<int>(group.code(x[i], p)));
    }
  };
  if (spec.scope == AffineScope::kTensor) {
    add_group(0, n);
    return out;
  }
  const std::int64_t group = spec.scope == AffineScope::kGroup ? std::min(spec.group, cols) : cols;
  out.groups_per_row = (cols + group - 1) / group;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; c += group) add_group(r * cols + c, std::min(group, cols - c));
  }
  return out;
}

void affine_dequantize(const AffineQuantized& q, float* x) {
  for (std::int64_t r = 0; r < q.rows; ++r) {
    for (std::int64_t c = 0; c < q.cols; ++c) {
      const std::size_t g = q.group_of(r, c);
      const std::int64_t i = r * q.cols + c;
      const int zero_point = q.zero_points.empty() ? 0 : q.zero_points[g];
      // In double: the product alone may exceed fp32 where the sum does not.
      const double product = static_cast<double>(q.scales[g]) * (q.code(i) - zero_point);
      x[i] = static_cast<float>(q.mins.empty() ? product : product + q.mins[g]);
    }
  }
}

std::vector<std::byte> pack_codes(std::span<const std::uint8_t> codes, int bits) {
  const auto width = static_cast<std::size_t>(bits);
  std::vector<std::byte> packed((codes.size() * width + 7) / 8);
  const std::uint32_t mask = (1u << bits) - 1u;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::size_t bit = i * width;
    const std::uint32_t shifted = (codes[i] & mask) << (bit % 8);
    packed[bit / 8] |= static_cast<std::byte>(shifted & 0xffu);
    if (shifted > 0xffu) packed[bit / 8 + 1] |= static_cast<std::byte>(shifted >> 8);
  }
  return packed;
}

Result<std::vector<std::uint8_t>> unpack_codes(std::span<const std::byte> packed, int bits, std::int64_t n,
                                               bool sign_extend) {
  if (bits < 2 || bits > 8) {
    return make_error(ErrorCode::kInvalidArgument, "codes of {} bits; 2 to 8 are possible", bits);
  }
  const auto width = static_cast<std::size_t>(bits);
  // In bytes, so that no product of n can overflow.
  const auto whole = static_cast<std::uint64_t>(n) / 8, rest = static_cast<std::uint64_t>(n) % 8;
  if (n < 0 || whole > packed.size() / width || whole * width + (rest * width + 7) / 8 > packed.size()) {
    return make_error(ErrorCode::kCorrupt, "{} bytes do not hold {} codes of {} bits", packed.size(), n,
                      bits);
  }
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(n));
  const std::uint32_t mask = (1u << bits) - 1u;
  const std::uint32_t sign = sign_extend ? 1u << (bits - 1) : 0u;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::size_t bit = i * width;
    std::uint32_t word = static_cast<std::uint32_t>(packed[bit / 8]);
    if (bit % 8 + width > 8) word |= static_cast<std::uint32_t>(packed[bit / 8 + 1]) << 8;
    const std::uint32_t code = (word >> (bit % 8)) & mask;
    codes[i] = static_cast<std::uint8_t>((code ^ sign) - sign);
  }
  return codes;
}

}  // namespace narrow::formats

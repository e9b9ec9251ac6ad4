#include "runtime/sampling/selection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

namespace narrow::runtime {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
// Independent partial results: what a vector register or four hold.
constexpr std::size_t kLanes = 16;

// -infinity for what is not finite.
inline float finite_or_none(float v) { return std::abs(v) <= std::numeric_limits<float>::max() ? v : kNone; }

// As integers whose order is that of the floats, without branches: compilers then vectorise the maximum.
float largest_of(std::span<const float> v) {
  constexpr std::int32_t kMagnitude = 0x7fffffff, kExponent = 0x7f800000;
  constexpr std::int32_t kLeast = std::numeric_limits<std::int32_t>::min();
  std::int32_t largest = kLeast;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const auto bits = std::bit_cast<std::int32_t>(v[i]);
    const std::int32_t key = bits ^ ((bits >> 31) & kMagnitude);
    const std::int32_t odd = -static_cast<std::int32_t>((bits & kExponent) == kExponent);  // not finite
    largest = std::max(largest, (key & ~odd) | (kLeast & odd));
  }
  return largest == kLeast ? kNone : std::bit_cast<float>(largest ^ ((largest >> 31) & kMagnitude));
}

inline double exp_inline(double x) {
  const double bounded = x > -708.0 ? x : -708.0;  // NaN too
  // Adding 1.5 * 2^52 leaves the nearest integer in the low bits.
  constexpr double kShift = 0x1.8p52;
  const double shifted = std::fma(bounded, 1.4426950408889634, kShift);
  const double n = shifted - kShift;
  // ln 2 in two parts, so that n times the first is exact.
  double r = std::fma(n, -0x1.62e42fefap-1, bounded);
  r = std::fma(n, -0x1.cf79abc9e3b3ap-40, r);
  double p = 1.0 / 6227020800.0;
  p = std::fma(p, r, 1.0 / 479001600.0);
  p = std::fma(p, r, 1.0 / 39916800.0);
  p = std::fma(p, r, 1.0 / 3628800.0);
  p = std::fma(p, r, 1.0 / 362880.0);
  p = std::fma(p, r, 1.0 / 40320.0);
  p = std::fma(p, r, 1.0 / 5040.0);
  p = std::fma(p, r, 1.0 / 720.0);
  p = std::fma(p, r, 1.0 / 120.0);
  p = std::fma(p, r, 1.0 / 24.0);
  p = std::fma(p, r, 1.0 / 6.0);
  p = std::fma(p, r, 0.5);
  p = std::fma(p, r, 1.0);
  p = std::fma(p, r, 1.0);
  const double e =
      std::bit_cast<double>(std::bit_cast<std::uint64_t>(p) + (std::bit_cast<std::uint64_t>(shifted) << 52));
  return x > -708.0 ? e : 0.0;
}

// Sum of e^argument(v) over a block; argument(v) <= 0, or NaN for what does not count.
template <class Argument>
double sum_block(std::span<const float> v, Argument argument) {
  std::array<double, LogitBlocks::kBlock> e;
  for (std::size_t i = 0; i < v.size(); ++i) e[i] = exp_inline(argument(finite_or_none(v[i])));
  std::array<double, kLanes> lane{};
  const std::size_t whole = v.size() / kLanes * kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) lane[j] += e[i + j];
  }
  for (std::size_t i = whole; i < v.size(); ++i) lane[0] += e[i];
  double sum = 0.0;
  for (const double s : lane) sum += s;
  return sum;
}

}  // namespace

double exp_of_negative(double x) { return exp_inline(x); }

std::span<const float> LogitBlocks::block(std::size_t b) const {
  return logits_.subspan(b * kBlock, std::min(kBlock, logits_.size() - b * kBlock));
}

void LogitBlocks::reset(std::span<const float> logits) {
  logits_ = logits;
  largest_.resize((logits.size() + kBlock - 1) / kBlock);
  best_ = kNone;
  for (std::size_t b = 0; b < largest_.size(); ++b) {
    largest_[b] = largest_of(block(b));
    best_ = std::max(best_, largest_[b]);
  }
}

std::int32_t LogitBlocks::best_id() const {
  const auto b =
      static_cast<std::size_t>(std::find(largest_.begin(), largest_.end(), best_) - largest_.begin());
  const auto values = block(b);
  const auto at = std::find(values.begin(), values.end(), best_) - values.begin();
  return static_cast<std::int32_t>(b * kBlock) + static_cast<std::int32_t>(at);
}

float LogitBlocks::reached_by(std::size_t k) {
  if (k > largest_.size()) return kNone;
  selected_ = largest_;
  const auto kth = selected_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(selected_.begin(), kth, selected_.end(), std::greater<>());
  return *kth;
}

void LogitBlocks::gather(float least, std::vector<Candidate>& out) const {
  const float bound = std::max(least, std::numeric_limits<float>::lowest());  // finite ones only
  for (std::size_t b = 0; b < largest_.size(); ++b) {
    if (!(largest_[b] >= bound)) continue;
    const auto values = block(b);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] >= bound && values[i] <= best_) {
        out.push_back({values[i], static_cast<std::int32_t>(b * kBlock + i), 0.0});
      }
    }
  }
}

double LogitBlocks::sum_of_exp() const {
  double sum = 0.0;
  for (std::size_t b = 0; b < largest_.size(); ++b) {
    sum += sum_block(block(b), [best = best_](float v) { return static_cast<double>(v - best); });
  }
  return sum;
}

float LogitBlocks::bound_of_tail(double tail) const {
  constexpr std::size_t kBins = 256;
  constexpr float kPerUnit = 4.0f;
  const std::size_t stride = largest_.size() < 256 ? 1 : 16;
  std::array<double, kBins> sums{};
  for (std::size_t b = 0; b < largest_.size(); b += stride) {
    for (const float v : block(b)) {
      const float depth = best_ - finite_or_none(v);
      if (!(depth < static_cast<float>(kBins) / kPerUnit)) continue;  // e^-64 and less
      sums[static_cast<std::size_t>(depth * kPerUnit)] += exp_inline(-static_cast<double>(depth));
    }
  }
  std::size_t bin = kBins;
  double below = 0.0;
  while (bin > 1) {
    below += static_cast<double>(stride) * sums[bin - 1];
    if (below > tail) break;
    --bin;
  }
  return best_ - static_cast<float>(bin) / kPerUnit;
}

std::int32_t LogitBlocks::draw(double temperature, double fraction) {
  const double inverse = 1.0 / temperature;
  const auto argument = [inverse, best = static_cast<double>(best_)](float v) {
    return (static_cast<double>(v) - best) * inverse;
  };
  sums_.resize(largest_.size());
  double total = 0.0;
  for (std::size_t b = 0; b < sums_.size(); ++b) total += sums_[b] = sum_block(block(b), argument);
  double left = fraction * total;
  std::int32_t last = best_id();
  for (std::size_t b = 0; b < sums_.size(); ++b) {
    if (left - sums_[b] >= 0.0) {
      left -= sums_[b];
      continue;
    }
    const auto values = block(b);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double weight = exp_inline(argument(finite_or_none(values[i])));
      if (weight > 0.0) last = static_cast<std::int32_t>(b * kBlock + i);
      left -= weight;
      if (left < 0.0) return last;
    }
  }
  return last;  // rounding left a sliver
}

Candidate last_of_prefix(std::span<const Candidate> c, double target, bool exceed) {
  constexpr std::size_t kFew = 256, kBuckets = 1024;
  const auto reached = [=](double sum) { return exceed ? sum > target : sum >= target; };
  double sum = 0.0;  // of all that is better than what is left
  std::vector<Candidate> left;
  while (c.size() > kFew) {
    const auto [worst, best] = std::minmax_element(
        c.begin(), c.end(), [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; });
    // Buckets of equal width, best first.
    const double top = best->logit, range = top - static_cast<double>(worst->logit);
    if (range == 0.0) break;
    const auto bucket_of = [top, scale = (kBuckets - 1) / range](const Candidate& x) {
      return static_cast<std::size_t>((top - x.logit) * scale);
    };
    std::array<double, kBuckets> weight{};
    std::array<bool, kBuckets> used{};
    for (const Candidate& x : c) {
      const std::size_t b = bucket_of(x);
      weight[b] += x.weight;
      used[b] = true;
    }
    std::size_t bucket = 0;  // of the prefix's end, or the last one
    for (std::size_t b = 0; b < kBuckets; ++b) {
      if (!used[b]) continue;
      bucket = b;
      if (b == kBuckets - 1 || reached(sum + weight[b])) break;
      sum += weight[b];
    }
    std::vector<Candidate> inside;
    for (const Candidate& x : c) {
      if (bucket_of(x) == bucket) inside.push_back(x);
    }
    left = std::move(inside);
    c = left;
  }
  // Few, or all alike.
  if (left.empty()) left.assign(c.begin(), c.end());
  auto begin = left.begin(), end = left.end();
  while (end - begin > static_cast<std::ptrdiff_t>(kFew)) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, Better());
    double first_half = 0.0;
    for (auto i = begin; i != middle; ++i) first_half += i->weight;
    if (reached(sum + first_half)) {
      end = middle;
    } else {
      begin = middle;
      sum += first_half;
    }
  }
  std::sort(begin, end, Better());
  for (; end - begin > 1; ++begin) {
    sum += begin->weight;
    if (reached(sum)) break;
  }
  return *begin;
}

}  // namespace narrow::runtime

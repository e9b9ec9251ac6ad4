#include "calib/stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/thread_team.h"
#include "formats/format.h"
#include "ops/gram.h"

namespace narrow::calib {
namespace {

// Share of the mean over all inputs that every input weighs at least.
constexpr double kDeadShare = 1e-6;
// Names that a finding lists before it only counts.
// Sums over `stats` whose members may be unknown.
Status merge_all(const std::vector<InputStats>& stats, InputStats& out) {
  for (const InputStats& s : stats) NARROW_TRY(out.merge(s));
  return {};
}

Moments neutral(std::int64_t k) {
  Moments m;
  m.mean_square.assign(static_cast<std::size_t>(k), 1.0f);
  return m;
}

// own: how much of the entry itself, the rest is of all experts.
Moments mix(const InputStats& s, const InputStats& all, double own) {
  const auto k = static_cast<std::size_t>(all.k);
  const auto mixed = [&](const std::vector<double>& mine, const std::vector<double>& others, std::size_t i) {
    const double m = s.rows > 0 ? mine[i] / static_cast<double>(s.rows) : 0.0;
    return own * m + (1.0 - own) * others[i] / static_cast<double>(all.rows);
  };
  std::vector<double> square(k);
  double total = 0;
  for (std::size_t i = 0; i < k; ++i) total += square[i] = mixed(s.sum_square, all.sum_square, i);
  if (!(total > 0.0) || !std::isfinite(total)) return neutral(all.k);
  const double least =
      std::max(kDeadShare * total / static_cast<double>(k), 1.0 * std::numeric_limits<float>::min());
  Moments m;
  for (const double x : square) m.mean_square.push_back(to_float(std::max(x, least)));
  if (!all.sum.empty()) {
    for (std::size_t i = 0; i < k; ++i) m.mean.push_back(static_cast<float>(mixed(s.sum, all.sum, i)));
  }
  if (!all.abs_max.empty()) m.abs_max = own < 1.0 ? all.abs_max : s.abs_max;
  return m;
}

// "a, b, c and 4 more"
class Named {
 public:
  void add(const std::string& what) {
    if (count_++ < kNamed) text_ += (text_.empty() ? "" : ", ") + what;
  }
  std::size_t count() const { return count_; }
  std::string text() const {
    return count_ <= kNamed ? text_ : fmt::format("{} and {} more", text_, count_ - kNamed);
  }

 private:
  std::size_t count_ = 0;
  std::string text_;
};

}  // namespace

float to_float(double x) {
  return static_cast<float>(std::min(x, static_cast<double>(std::numeric_limits<float>::max())));
}

InputStats InputStats::of_width(std::int64_t k) {
  InputStats s;
  s.k = k;
  s.sum_square.assign(static_cast<std::size_t>(k), 0.0);
  s.sum.assign(static_cast<std::size_t>(k), 0.0);
  s.abs_max.assign(static_cast<std::size_t>(k), 0.0f);
  return s;
}

Status InputStats::add(ops::ConstMatrix x, bool with_gram) {
  if (k == 0) *this = of_width(x.cols);
  if (x.cols != k) {
    return make_error(ErrorCode::kInvalidArgument, "statistics of {} inputs cannot take rows of {}", k,
                      x.cols);
  }
  std::vector<std::int64_t> good;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    if (find_non_finite(x.row(r), k) < 0) good.push_back(r);
  }
  dropped += x.rows - static_cast<std::int64_t>(good.size());
  rows += static_cast<std::int64_t>(good.size());
  constexpr std::int64_t kColumns = 64;
  parallel_for((k + kColumns - 1) / kColumns, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kColumns, end = std::min(k, begin + kColumns);
    for (const std::int64_t r : good) {
      const float* row = x.row(r);
      for (std::int64_t c = begin; c < end; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double v = row[c];
        sum_square[i] += v * v;
        if (!sum.empty()) sum[i] += v;
        if (!abs_max.empty()) abs_max[i] = std::max(abs_max[i], std::fabs(row[c]));
      }
    }
  });
  if (!with_gram) return {};
  if (gram.size() == 0) {
    gram.resize(static_cast<std::size_t>(k * k));
    std::fill_n(gram.data(), gram.size(), 0.0f);
  }
  AlignedBuffer<float> kept;
  if (static_cast<std::int64_t>(good.size()) != x.rows) {
    kept.resize(good.size() * static_cast<std::size_t>(k));
    for (std::size_t i = 0; i < good.size(); ++i) {
      std::copy(x.row(good[i]), x.row(good[i]) + k, kept.data() + static_cast<std::int64_t>(i) * k);
    }
    x = {kept.data(), static_cast<std::int64_t>(good.size()), k};
  }
  NARROW_TRY(ops::add_gram(x, gram.data()));
  ops::fill_upper(k, gram.data());
  return {};
}

Status InputStats::merge(const InputStats& other) {
  if (other.k == 0) return {};
  if (k == 0) {
    *this = other.copy();
    return {};
  }
  if (other.k != k) {
    return make_error(ErrorCode::kInvalidArgument, "statistics of {} inputs and of {} cannot be merged", k,
                      other.k);
  }
  rows += other.rows;
  dropped += other.dropped;
  if (other.sum.empty()) sum.clear();
  if (other.abs_max.empty()) abs_max.clear();
  for (std::size_t i = 0; i < sum_square.size(); ++i) {
    sum_square[i] += other.sum_square[i];
    if (!sum.empty()) sum[i] += other.sum[i];
    if (!abs_max.empty()) abs_max[i] = std::max(abs_max[i], other.abs_max[i]);
  }
  if (other.gram.size() == 0) gram.resize(0);
  for (std::size_t i = 0; i < gram.size(); ++i) gram[i] += other.gram[i];
  return {};
}

InputStats InputStats::copy() const {
  InputStats s;
  s.k = k;
  s.rows = rows;
  s.dropped = dropped;
  s.sum_square = sum_square;
  s.sum = sum;
  s.abs_max = abs_max;
  s.gram.resize(gram.size());
  std::copy_n(gram.data(), gram.size(), s.gram.data());
  return s;
}

bool split_experts(std::vector<InputStats>& stats, std::int64_t n_expert) {
  if (static_cast<std::int64_t>(stats.size()) == n_expert) return true;
  if (stats.size() != 1 || n_expert < 1 || stats[0].k % n_expert != 0) return false;
  const InputStats whole = stats[0].copy();
  stats.clear();
  const std::int64_t k = whole.k / n_expert;
  const auto part = [k](const auto& from, std::int64_t e) {
    using Vector = std::decay_t<decltype(from)>;
    return from.empty() ? Vector() : Vector(from.begin() + e * k, from.begin() + (e + 1) * k);
  };
  for (std::int64_t e = 0; e < n_expert; ++e) {
    InputStats& s = stats.emplace_back();
    s.k = k;
    s.rows = whole.rows;
    s.dropped = whole.dropped;
    s.sum_square = part(whole.sum_square, e);
    s.sum = part(whole.sum, e);
    s.abs_max = part(whole.abs_max, e);
    // llama.cpp's older files give an expert without data a mean of exactly 1 everywhere.
    const auto is_one = [&](double x) { return x == static_cast<double>(s.rows); };
    if (!std::all_of(s.sum_square.begin(), s.sum_square.end(), is_one)) continue;
    s.rows = 0;
    std::fill(s.sum_square.begin(), s.sum_square.end(), 0.0);
  }
  return true;
}

Status ModelStats::merge(const ModelStats& other) {
  for (const auto& [name, theirs] : other.inputs) {
    std::vector<InputStats>& mine = inputs[name];
    if (mine.empty()) mine.resize(theirs.size());
    std::vector<InputStats> split;
    for (const InputStats& s : theirs) split.push_back(s.copy());
    if (!split_experts(mine, static_cast<std::int64_t>(split.size())) &&
        !split_experts(split, static_cast<std::int64_t>(mine.size()))) {
      return make_error(ErrorCode::kInvalidArgument,
                        "'{}': statistics of {} experts and of {} cannot be merged: they are of two models",
                        name, mine.size(), split.size());
    }
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (const Status s = mine[i].merge(split[i]); !s.ok()) {
        return with_context(s.error(), "'" + name + "'");
      }
    }
  }
  for (const std::string& d : other.datasets) {
    if (std::find(datasets.begin(), datasets.end(), d) == datasets.end()) datasets.push_back(d);
  }
  if (chunk_tokens == 0) chunk_tokens = other.chunk_tokens;
  // Windows of another length, counted in this one's.
  if (chunk_tokens > 0) {
    chunks +=
        (other.chunks * std::max<std::int64_t>(other.chunk_tokens, 1) + chunk_tokens - 1) / chunk_tokens;
  }
  return {};
}

std::vector<Moments> moments(const std::vector<InputStats>& stats) {
  InputStats all;
  std::vector<Moments> out;
  const bool same = merge_all(stats, all).ok();  // entries of one matrix have the same k
  for (const InputStats& s : stats) {
    if (!same || all.rows == 0) {
      out.push_back(neutral(s.k == 0 ? all.k : s.k));
      continue;
    }
    const bool starved = s.rows < (stats.size() > 1 ? kFewRows : 1);
    out.push_back(mix(s, all, starved ? static_cast<double>(s.rows) / static_cast<double>(kFewRows) : 1.0));
  }
  return out;
}

std::vector<std::string> findings(const ModelStats& stats) {
  Named empty, starved, zero, dead, dropped;
  std::int64_t dead_inputs = 0, dropped_rows = 0;
  for (const auto& [name, entries] : stats.inputs) {
    std::int64_t rows = 0, lost = 0;
    for (const InputStats& s : entries) {
      rows += s.rows;
      lost += s.dropped;
    }
    if (lost > 0) dropped.add(fmt::format("{} ({})", name, lost));
    dropped_rows += lost;
    if (rows == 0) {
      empty.add(name);
      continue;
    }
    std::vector<bool> seen;  // inputs that any expert saw other than 0
    for (std::size_t e = 0; e < entries.size(); ++e) {
      const InputStats& s = entries[e];
      if (entries.size() > 1 && s.rows < kFewRows) {
        starved.add(fmt::format("{} expert {} ({})", name, e, s.rows));
      }
      seen.resize(s.sum_square.size());
      for (std::size_t i = 0; i < s.sum_square.size(); ++i) seen[i] = seen[i] || s.sum_square[i] > 0.0;
    }
    const auto first = std::find(seen.begin(), seen.end(), false);
    if (first == seen.end()) continue;
    const auto n = std::count(seen.begin(), seen.end(), false);
    if (n == static_cast<std::ptrdiff_t>(seen.size())) {
      zero.add(name);
    } else {
      dead.add(fmt::format("{} ({}, first {})", name, n, first - seen.begin()));
      dead_inputs += n;
    }
  }
  std::vector<std::string> out;
  if (dropped.count() > 0) {
    out.push_back(fmt::format("{} rows with NaN or infinity left out: {}", dropped_rows, dropped.text()));
  }
  if (empty.count() > 0) {
    out.push_back(fmt::format("no data for {} matrices, whose inputs all count the same: {}", empty.count(),
                              empty.text()));
  }
  if (zero.count() > 0) {
    out.push_back(fmt::format("nothing but zeros for {} matrices, whose inputs all count the same: {}",
                              zero.count(), zero.text()));
  }
  if (starved.count() > 0) {
    out.push_back(fmt::format("{} experts saw fewer than {} rows and borrow from the others: {}",
                              starved.count(), kFewRows, starved.text()));
  }
  if (dead.count() > 0) {
    out.push_back(
        fmt::format("{} inputs are always 0 and count next to nothing: {}", dead_inputs, dead.text()));
  }
  return out;
}

}  // namespace narrow::calib

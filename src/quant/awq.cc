#include "quant/awq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/thread_team.h"
#include "ops/gemm.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kRows = 16;  // of a work item
constexpr int kSteps = 5;           // of alpha over [0, 1], then halved once around the best

Status check(const AwqProblem& p) {
  const auto k = static_cast<std::size_t>(p.k);
  const bool channels_fit =
      p.channel.size() == k && p.mean_square.size() == static_cast<std::size_t>(p.channels) &&
      std::all_of(p.channel.begin(), p.channel.end(), [&](auto c) { return c >= 0 && c < p.channels; });
  if (!channels_fit) {
    return make_error(ErrorCode::kInvalidArgument, "awq: {} inputs, {} channels and {} moments do not fit",
                      p.k, p.channels, p.mean_square.size());
  }
  for (const AwqMatrix& m : p.matrices) {
    const FormatInfo& info = format_info(m.format);
    if (!info.can_encode()) {
      return make_error(ErrorCode::kUnsupported, "awq: narrow reads {} but does not write it", info.name);
    }
    if (m.w.size() != static_cast<std::size_t>(m.n) * k || m.mean_square.size() != k ||
        p.k % info.block_size != 0 || (!m.hessian.empty() && m.hessian.size() != k * k)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "awq: a matrix of {} values in {} with {} moments does not fit {} inputs", m.w.size(),
                        info.name, m.mean_square.size(), p.k);
    }
  }
  return {};
}

std::vector<float> scales_for(std::span<const float> mean_square, float alpha) {
  float least = std::numeric_limits<float>::infinity(), greatest = 0;
  for (const float m : mean_square) {
    if (m > 0) least = std::min(least, m);
    greatest = std::max(greatest, m);
  }
  std::vector<float> s(mean_square.size(), 1.0f);
  if (!(greatest > 0) || alpha == 0) return s;
  const float middle = std::pow(std::sqrt(least) * std::sqrt(greatest), 0.5f * alpha);
  for (std::size_t i = 0; i < s.size(); ++i) {
    // An input that is always 0 is as small as the smallest.
    const float m = std::max(mean_square[i], least);
    s[i] = std::clamp(std::pow(m, 0.5f * alpha) / middle, 1.0f / kMostScale, kMostScale);
  }
  return s;
}

// Buffers of one thread.
struct Work {
  std::vector<float> scaled, difference, product;
  std::vector<std::byte> stored;
};

// tr(D H D^T) of a stretch of rows, D = w - quantize(w s) / s; s and importance [k].
double stretch_error(const AwqProblem& p, const AwqMatrix& m, std::int64_t begin, std::int64_t rows,
                     std::span<const float> s, std::span<const float> importance, Work& t) {
  const std::int64_t k = p.k;
  const FormatInfo& info = format_info(m.format);
  t.scaled.resize(static_cast<std::size_t>(k));
  t.difference.resize(static_cast<std::size_t>(kRows * k));
  t.product.resize(t.difference.size());
  t.stored.resize(row_bytes(m.format, k));
  EncodeOptions options;
  options.search = p.search;
  options.importance = importance.data();
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* w = m.w.data() + (begin + r) * k;
    float* d = t.difference.data() + r * k;
    for (std::int64_t j = 0; j < k; ++j) {
      t.scaled[static_cast<std::size_t>(j)] = w[j] * s[static_cast<std::size_t>(j)];
    }
    info.encode(t.scaled.data(), t.stored.data(), k, options);
    info.decode(t.stored.data(), d, k);
    for (std::int64_t j = 0; j < k; ++j) d[j] = w[j] - d[j] / s[static_cast<std::size_t>(j)];
  }
  double sum = 0;
  if (m.hessian.empty()) {
    for (std::int64_t i = 0; i < rows * k; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double d = t.difference[at];
      sum += d * d * static_cast<double>(m.mean_square[static_cast<std::size_t>(i % k)]);
    }
    return sum;
  }
  const Status status = ops::gemm_f32_single(false, rows, k, k, 1.0f, t.difference.data(), k,
                                             m.hessian.data(), k, t.product.data(), k);
  if (!status.ok()) return std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < rows * k; ++i) {
    const auto at = static_cast<std::size_t>(i);
    sum += static_cast<double>(t.difference[at]) * static_cast<double>(t.product[at]);
  }
  return sum;
}

// One per alpha.
std::vector<double> errors_for(const AwqProblem& p, std::span<const float> alphas) {
  struct Item {
    std::size_t alpha, matrix;
    std::int64_t begin;
  };
  struct Scaled {
    std::vector<float> s, importance;  // [k]
  };
  std::vector<Item> items;
  std::vector<Scaled> scaled;  // by alpha, then matrix
  for (std::size_t a = 0; a < alphas.size(); ++a) {
    const std::vector<float> of_channel = scales_for(p.mean_square, alphas[a]);
    for (std::size_t m = 0; m < p.matrices.size(); ++m) {
      Scaled& x = scaled.emplace_back();
      for (std::size_t j = 0; j < p.channel.size(); ++j) {
        const float s = of_channel[static_cast<std::size_t>(p.channel[j])];
        x.s.push_back(s);
        x.importance.push_back(p.matrices[m].mean_square[j] / (s * s));
      }
      for (std::int64_t r = 0; r < p.matrices[m].n; r += kRows) items.push_back({a, m, r});
    }
  }
  std::vector<double> partial(items.size());
  std::vector<Work> work(static_cast<std::size_t>(thread_count()));
  parallel_for(static_cast<std::int64_t>(items.size()), [&](std::int64_t i, int thread) {
    const Item& item = items[static_cast<std::size_t>(i)];
    const AwqMatrix& m = p.matrices[item.matrix];
    const Scaled& x = scaled[item.alpha * p.matrices.size() + item.matrix];
    partial[static_cast<std::size_t>(i)] =
        m.weight * stretch_error(p, m, item.begin, std::min(kRows, m.n - item.begin), x.s, x.importance,
                                 work[static_cast<std::size_t>(thread)]);
  });
  std::vector<double> out(alphas.size(), 0.0);
  for (std::size_t i = 0; i < items.size(); ++i) out[items[i].alpha] += partial[i];
  return out;
}

}  // namespace

Result<AwqScales> search_awq(const AwqProblem& problem) {
  NARROW_TRY(check(problem));
  std::vector<float> alphas;
  for (int i = 0; i <= kSteps; ++i) alphas.push_back(static_cast<float>(i) / kSteps);
  std::vector<double> errors = errors_for(problem, alphas);
  AwqScales best;
  best.plain_error = best.error = errors[0];
  const auto take_best = [&] {
    for (std::size_t i = 0; i < alphas.size(); ++i) {
      if (!(errors[i] < best.error)) continue;
      best.error = errors[i];
      best.alpha = alphas[i];
    }
  };
  take_best();
  constexpr float kHalf = 0.5f / kSteps;
  alphas = {best.alpha + kHalf};
  if (best.alpha > 0) alphas.push_back(best.alpha - kHalf);
  errors = errors_for(problem, alphas);
  take_best();
  best.scale = scales_for(problem.mean_square, best.alpha);
  return best;
}

}  // namespace narrow::quant

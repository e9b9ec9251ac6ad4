#include "quant/gptq.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"
#include "ops/cholesky.h"
#include "ops/gemm.h"
#include "quant/grid_rows.h"
#include "quant/rtn.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kRows = 32;      // of a work item
constexpr std::int64_t kColumns = 128;  // whose errors reach the columns after them in one product

struct Knobs {
  int sweeps = 3, order = 1, imp = 1;
  Knobs() {
    if (const char* s = std::getenv("NK_SWEEPS")) sweeps = std::atoi(s);
    if (const char* s = std::getenv("NK_ORDER")) order = std::atoi(s);
    if (const char* s = std::getenv("NK_IMP")) imp = std::atoi(s);
  }
};
const Knobs& knobs() {
  static const Knobs k;
  return k;
}

// What all rows of a matrix share.
struct Problem {
  std::int64_t k = 0;
  AlignedBuffer<float> h;           // [k, k], damped
  AlignedBuffer<float> u;           // [k, k]: h^-1 = u^T u in the order of `order`
  std::vector<std::int64_t> order;  // columns in the order in which they are decided
  std::vector<float> importance;    // [k] 1 / [h^-1]_jj: what an error costs when others may still follow it
};

Result<Problem> make_problem(std::int64_t k, std::span<const float> hessian, float damping) {
  Problem p;
  p.k = k;
  p.h.resize(static_cast<std::size_t>(k * k));
  p.u.resize(p.h.size());
  p.order.resize(static_cast<std::size_t>(k));
  std::iota(p.order.begin(), p.order.end(), 0);
  double mean = 0;
  for (std::int64_t j = 0; j < k; ++j)
    mean += static_cast<double>(hessian[static_cast<std::size_t>(j * k + j)]);
  mean /= static_cast<double>(k);
  if (!(mean > 0)) mean = 1;
  if (knobs().order == 1) {
    std::stable_sort(p.order.begin(), p.order.end(), [&](std::int64_t a, std::int64_t b) {
      return hessian[static_cast<std::size_t>(a * k + a)] > hessian[static_cast<std::size_t>(b * k + b)];
    });
  }
  AlignedBuffer<float> permuted(p.h.size());
  Status status;
  for (int attempt = 0; attempt < 8; ++attempt, damping *= 10) {
    std::copy(hessian.begin(), hessian.end(), p.h.data());
    for (std::int64_t j = 0; j < k; ++j) {
      float& d = p.h[static_cast<std::size_t>(j * k + j)];
      d += damping * d + 1e-4f * static_cast<float>(mean);
    }
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j < k; ++j) {
        permuted[static_cast<std::size_t>(i * k + j)] = p.h[static_cast<std::size_t>(
            p.order[static_cast<std::size_t>(i)] * k + p.order[static_cast<std::size_t>(j)])];
      }
    }
    status = ops::inverse_factor(k, permuted.data(), p.u.data());
    if (status.ok()) break;
  }
  if (!status.ok()) return status.error();
  // [h^-1]_jj = sum over i <= j of u_ij^2.
  std::vector<double> inverse(static_cast<std::size_t>(k), 0.0);
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = i; j < k; ++j) {
      const double v = static_cast<double>(p.u[static_cast<std::size_t>(i * k + j)]);
      inverse[static_cast<std::size_t>(j)] += v * v;
    }
  }
  p.importance.resize(static_cast<std::size_t>(k));
  for (std::int64_t j = 0; j < k; ++j) {
    const auto at = static_cast<std::size_t>(p.order[static_cast<std::size_t>(j)]);
    p.importance[at] = static_cast<float>(1.0 / inverse[static_cast<std::size_t>(j)]);
    if (knobs().imp == 2) p.importance[at] = hessian[at * static_cast<std::size_t>(k) + at];
  }
  return p;
}

// Buffers of one thread.
struct Work {
  AlignedBuffer<float> w, errors, product, g, r;
  std::vector<float> a, m, ha, hm, delta;
};

// Codes by error feedback for `rows` rows of w [rows, k] (destroyed), in the order of the problem.
Status feed_back(const Problem& p, bool search, std::int64_t rows, Work& work, std::vector<GridRow>& grid) {
  const std::int64_t k = p.k;
  float* w = work.w.data();
  const std::int64_t block = grid[0].block();
  const bool in_order = knobs().order == 0;
  if (!in_order) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t b = 0; b < k / block; ++b) {
        grid[static_cast<std::size_t>(r)].fit(b, w + r * k + b * block, p.importance.data() + b * block,
                                              search);
      }
    }
    AlignedBuffer<float>& t = work.r;
    t.reserve_at_least(static_cast<std::size_t>(rows * k));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t j = 0; j < k; ++j)
        t[static_cast<std::size_t>(r * k + j)] = w[r * k + p.order[static_cast<std::size_t>(j)]];
    }
    std::copy_n(t.data(), rows * k, w);
  }
  const std::int64_t columns = std::max(kColumns, in_order ? block : 0);
  work.errors.reserve_at_least(static_cast<std::size_t>(kRows * columns));
  work.product.reserve_at_least(static_cast<std::size_t>(kRows * k));
  for (std::int64_t begin = 0; begin < k; begin += columns) {
    const std::int64_t end = std::min(k, begin + columns), count = end - begin;
    for (std::int64_t r = 0; r < rows; ++r) {
      GridRow& row = grid[static_cast<std::size_t>(r)];
      float* wr = w + r * k;
      float* err = work.errors.data() + r * count;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t column = p.order[static_cast<std::size_t>(i)];
        if (in_order && i % block == 0) row.fit(i / block, wr + i, p.importance.data() + i, search);
        const float* u = p.u.data() + i * k;
        const float e = (wr[i] - row.choose(column, wr[i])) / u[i];
        err[i - begin] = e;
        for (std::int64_t j = i + 1; j < end; ++j) wr[j] -= e * u[j];
      }
    }
    if (end == k) break;
    NARROW_TRY(ops::gemm_f32_single(false, rows, k - end, count, 1.0f, work.errors.data(), count,
                                    p.u.data() + begin * k + end, k, work.product.data(), k - end));
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* from = work.product.data() + r * (k - end);
      float* to = w + r * k + end;
      for (std::int64_t j = 0; j < k - end; ++j) to[j] -= from[j];
    }
  }
  return {};
}

// g -= H[:, begin .. begin + n) * delta.
void move(const Problem& p, std::int64_t begin, std::int64_t n, const float* delta, float* g) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float d = delta[i];
    if (d == 0) continue;
    const float* h = p.h.data() + (begin + i) * p.k;
    for (std::int64_t j = 0; j < p.k; ++j) g[j] -= d * h[j];
  }
}

float dot(const float* a, const float* b, std::int64_t n) {
  float lanes[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int l = 0; l < 8; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  float sum =
      ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Least squares for the factors of block b, codes as they are.
void refit(const Problem& p, std::int64_t b, Work& work, GridRow& row, float* g) {
  const std::int64_t block = row.block(), begin = b * block, k = p.k;
  const auto n = static_cast<std::size_t>(block);
  for (auto* v : {&work.a, &work.m, &work.ha, &work.hm, &work.delta}) v->resize(n);
  float d, dmin;
  if (!row.directions(b, &d, &dmin, work.a.data(), work.m.data())) return;
  const bool has_min = row.has_min();
  for (std::int64_t i = 0; i < block; ++i) {
    const float* h = p.h.data() + (begin + i) * k + begin;
    work.ha[static_cast<std::size_t>(i)] = dot(h, work.a.data(), block);
    if (has_min) work.hm[static_cast<std::size_t>(i)] = dot(h, work.m.data(), block);
  }
  const double aa = static_cast<double>(dot(work.a.data(), work.ha.data(), block));
  const double ag = static_cast<double>(dot(work.a.data(), g + begin, block));
  double step = 0, step_min = 0;
  if (has_min) {
    const double am = static_cast<double>(dot(work.a.data(), work.hm.data(), block));
    const double mm = static_cast<double>(dot(work.m.data(), work.hm.data(), block));
    const double mg = static_cast<double>(dot(work.m.data(), g + begin, block));
    const double det = aa * mm - am * am;
    if (det > 1e-6 * aa * mm) {
      step = (ag * mm - mg * am) / det;
      step_min = (mg * aa - ag * am) / det;
    } else if (aa > 0) {
      step = ag / aa;
    }
  } else if (aa > 0) {
    step = ag / aa;
  }
  const float new_d = round_to_f16(d + static_cast<float>(step));
  const float new_min = round_to_f16(dmin + static_cast<float>(step_min));
  if ((new_d == d && new_min == dmin) || !std::isfinite(new_d) || !std::isfinite(new_min)) return;
  // What the rounded step really gains.
  double loss = 0;
  for (std::int64_t i = 0; i < block; ++i) {
    const auto at = static_cast<std::size_t>(i);
    work.delta[at] = (new_d - d) * work.a[at] + (has_min ? (new_min - dmin) * work.m[at] : 0.0f);
  }
  for (std::int64_t i = 0; i < block; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float hd = (new_d - d) * work.ha[at] + (has_min ? (new_min - dmin) * work.hm[at] : 0.0f);
    loss += static_cast<double>(work.delta[at]) *
            (static_cast<double>(hd) - 2.0 * static_cast<double>(g[begin + i]));
  }
  if (!(loss < 0)) return;
  row.set_factors(b, new_d, new_min);
  move(p, begin, block, work.delta.data(), g);
}

// One sweep over a row: g = H (exact - stored).
bool improve(const Problem& p, GridRow& row, float* g) {
  bool changed = false;
  for (std::int64_t j = 0; j < p.k; ++j) {
    const float hjj = p.h[static_cast<std::size_t>(j * p.k + j)];
    const float old = row.value(j);
    const float y = row.choose(j, old + g[j] / hjj);
    if (y == old) continue;
    const float delta = y - old;
    move(p, j, 1, &delta, g);
    changed = true;
  }
  return changed;
}

}  // namespace

double output_error(const float* exact, const std::byte* stored, Format format, std::int64_t n,
                    std::int64_t k, const float* hessian) {
  const std::size_t stride = row_bytes(format, k);
  const std::int64_t items = (n + kRows - 1) / kRows;
  std::vector<double> partial(static_cast<std::size_t>(items), 0.0);
  std::vector<AlignedBuffer<float>> d(static_cast<std::size_t>(thread_count())), hd(d.size());
  for (std::size_t t = 0; t < d.size(); ++t) {
    d[t].resize(static_cast<std::size_t>(kRows * k));
    hd[t].resize(static_cast<std::size_t>(kRows * k));
  }
  parallel_for(items, [&](std::int64_t item, int thread) {
    const std::int64_t begin = item * kRows, rows = std::min(kRows, n - begin);
    float* diff = d[static_cast<std::size_t>(thread)].data();
    float* product = hd[static_cast<std::size_t>(thread)].data();
    for (std::int64_t r = 0; r < rows; ++r) {
      format_info(format).decode(stored + static_cast<std::size_t>(begin + r) * stride, diff + r * k, k);
      for (std::int64_t j = 0; j < k; ++j) diff[r * k + j] = exact[(begin + r) * k + j] - diff[r * k + j];
    }
    const Status s = ops::gemm_f32_single(false, rows, k, k, 1.0f, diff, k, hessian, k, product, k);
    double sum = s.ok() ? 0.0 : std::numeric_limits<double>::infinity();
    for (std::int64_t i = 0; i < rows * k; ++i)
      sum += static_cast<double>(diff[i]) * static_cast<double>(product[i]);
    partial[static_cast<std::size_t>(item)] = sum;
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

Status quantize_gptq(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  if (formats::grid_codec(spec.format) == nullptr) {
    return make_error(ErrorCode::kUnsupported, "gptq: {} has no codes that can be chosen one by one",
                      format_info(spec.format).name);
  }
  if (static_cast<std::int64_t>(stats.hessian.size()) != k * k) {
    return make_error(ErrorCode::kInvalidArgument, "gptq: a Hessian of {} values for {} inputs",
                      stats.hessian.size(), k);
  }
  NARROW_ASSIGN(const Problem p,
                make_problem(k, stats.hessian, spec.damping > 0 ? spec.damping : kDefaultDamping));
  const std::size_t stride = row_bytes(spec.format, k);
  const std::int64_t items = (n + kRows - 1) / kRows;
  std::vector<Work> work(static_cast<std::size_t>(thread_count()));
  std::vector<WeightError> partial(static_cast<std::size_t>(items));
  std::vector<Status> status(static_cast<std::size_t>(items));
  parallel_for(items, [&](std::int64_t item, int thread) {
    const std::int64_t begin = item * kRows, rows = std::min(kRows, n - begin);
    Work& t = work[static_cast<std::size_t>(thread)];
    t.w.reserve_at_least(static_cast<std::size_t>(kRows * k));
    t.g.reserve_at_least(static_cast<std::size_t>(kRows * k));
    t.r.reserve_at_least(static_cast<std::size_t>(kRows * k));
    const float* exact = w + begin * k;
    std::copy_n(exact, rows * k, t.w.data());
    std::vector<GridRow> grid(static_cast<std::size_t>(rows), GridRow(spec.format, k));
    Status& s = status[static_cast<std::size_t>(item)];
    s = feed_back(p, spec.search, rows, t, grid);
    if (!s.ok()) return;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t j = 0; j < k; ++j) {
        t.r[static_cast<std::size_t>(r * k + j)] =
            exact[r * k + j] - grid[static_cast<std::size_t>(r)].value(j);
      }
    }
    s = ops::gemm_f32_single(false, rows, k, k, 1.0f, t.r.data(), k, p.h.data(), k, t.g.data(), k);
    if (!s.ok()) return;
    for (std::int64_t r = 0; r < rows; ++r) {
      GridRow& row = grid[static_cast<std::size_t>(r)];
      float* g = t.g.data() + r * k;
      for (int sweep = 0; sweep < knobs().sweeps; ++sweep) {
        for (std::int64_t b = 0; b < k / row.block(); ++b) refit(p, b, t, row, g);
        if (!improve(p, row, g)) break;
      }
      std::byte* dst = out + static_cast<std::size_t>(begin + r) * stride;
      row.store(dst);
      format_info(spec.format).decode(dst, t.w.data(), k);
      partial[static_cast<std::size_t>(item)].add_values(exact + r * k, t.w.data(), k);
    }
  });
  for (const Status& s : status) NARROW_TRY(s);
  if (error != nullptr) {
    *error = {};
    for (const WeightError& e : partial) error->add(e);
  }
  return {};
}

}  // namespace narrow::quant

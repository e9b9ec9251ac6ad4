#include "quant/gptq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/scalar.h"
#include "base/thread_team.h"
#include "ops/cholesky.h"
#include "ops/gemm.h"
#include "quant/code_row.h"
#include "quant/ordered_factor.h"
#include "quant/rows.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kRows = 128;     // of a work item
constexpr std::int64_t kColumns = 128;  // whose errors reach the columns after them in one product
constexpr int kSweeps = 3;              // of refinement
constexpr int kMaxUnit = 8;
constexpr std::int64_t kOneScale = 32;  // weights of the blocks that have but one scale

// What all rows of a matrix share.
struct Problem {
  std::int64_t k = 0;
  int unit = 1;
  std::span<const float> exact;     // [k, k], undamped
  AlignedBuffer<float> h;           // [k, k], damped
  std::vector<float> added;         // [k] to its diagonal
  AlignedBuffer<float> u;           // [k, k]: h^-1 = u^T u, columns in the order of `order`
  std::vector<std::int64_t> order;  // columns as they are decided; those of a unit stay together
  std::vector<float> importance;    // [k] 1 / [h^-1]_jj: what an error costs when others may still make up
  // Of each unit in order: the inverse of its diagonal block of u, and its metric (u^T u)^-1.
  std::vector<float> inverse, metric;
  // Of each super-block of the format: u with (block of h)^-1 = u^T u, and the importances in it, 1 over the
  // diagonal of that inverse.
  AlignedBuffer<float> block_u;
  std::vector<float> block_importance;
  std::vector<float> block_metric;  // of each unit by place: its block of h and the inverse of that
  std::vector<float> block_inverse;
};

// Inverse of a small matrix by Gauss-Jordan with pivots on the diagonal, which positive definite matrices and
// triangular ones allow.
void invert_small(const float* in, int n, float* out) {
  double a[kMaxUnit * kMaxUnit], b[kMaxUnit * kMaxUnit] = {};
  for (int i = 0; i < n * n; ++i) a[i] = static_cast<double>(in[i]);
  for (int i = 0; i < n; ++i) b[i * n + i] = 1.0;
  for (int p = 0; p < n; ++p) {
    const double pivot = 1.0 / a[p * n + p];
    for (int j = 0; j < n; ++j) {
      a[p * n + j] *= pivot;
      b[p * n + j] *= pivot;
    }
    for (int i = 0; i < n; ++i) {
      const double f = a[i * n + p];
      if (i == p || f == 0) continue;
      for (int j = 0; j < n; ++j) {
        a[i * n + j] -= f * a[p * n + j];
        b[i * n + j] -= f * b[p * n + j];
      }
    }
  }
  for (int i = 0; i < n * n; ++i) out[i] = static_cast<float>(b[i]);
}

void prepare_units(Problem& p) {
  if (p.unit == 1) return;
  const int n = p.unit;
  const auto units = static_cast<std::size_t>(p.k / n), size = static_cast<std::size_t>(n * n);
  for (auto* v : {&p.inverse, &p.metric, &p.block_metric, &p.block_inverse}) v->resize(units * size);
  float block[kMaxUnit * kMaxUnit], product[kMaxUnit * kMaxUnit];
  for (std::size_t t = 0; t < units; ++t) {
    const std::int64_t begin = static_cast<std::int64_t>(t) * n;
    for (int i = 0; i < n; ++i) std::copy_n(p.u.data() + (begin + i) * p.k + begin, n, block + i * n);
    invert_small(block, n, p.inverse.data() + t * size);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        product[i * n + j] = 0;
        for (int l = 0; l < n; ++l) product[i * n + j] += block[l * n + i] * block[l * n + j];
      }
    }
    invert_small(product, n, p.metric.data() + t * size);
    float* own = p.block_metric.data() + t * size;
    for (int i = 0; i < n; ++i) std::copy_n(p.h.data() + (begin + i) * p.k + begin, n, own + i * n);
    invert_small(own, n, p.block_inverse.data() + t * size);
  }
}

// 1 / [h^-1]_jj for h^-1 = u^T u, u [n, n] upper triangular: [h^-1]_jj = sum over i <= j of u_ij^2.
std::vector<float> inverse_diagonal(const float* u, std::int64_t n) {
  std::vector<double> sums(static_cast<std::size_t>(n), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j) {
      const double v = static_cast<double>(u[i * n + j]);
      sums[static_cast<std::size_t>(j)] += v * v;
    }
  }
  std::vector<float> out;
  for (const double s : sums) out.push_back(static_cast<float>(1.0 / s));
  return out;
}

// For encode_again().
Status prepare_blocks(Problem& p, std::int64_t block) {
  if (block <= kOneScale) return {};
  const std::int64_t k = p.k;
  p.block_u.resize(static_cast<std::size_t>(k * block));
  p.block_importance.resize(static_cast<std::size_t>(k));
  for (std::int64_t b = 0; b < k / block; ++b) {
    float* u = p.block_u.data() + b * block * block;
    for (std::int64_t i = 0; i < block; ++i) {
      std::copy_n(p.h.data() + (b * block + i) * k + b * block, block, u + i * block);
    }
    NARROW_TRY(ops::inverse_factor(block, u, u));
    const std::vector<float> importance = inverse_diagonal(u, block);
    std::copy(importance.begin(), importance.end(), p.block_importance.begin() + b * block);
  }
  return {};
}

Result<Problem> make_problem(std::int64_t k, Format format, std::span<const float> hessian, float damping) {
  Problem p;
  p.k = k;
  const int unit = CodeRow(format, format_info(format).block_size).unit();
  p.unit = unit;
  p.exact = hessian;
  NARROW_ASSIGN(OrderedFactor factor, ordered_factor(hessian, k, unit, damping));
  p.order = std::move(factor.order);
  p.u = std::move(factor.u);
  p.h.resize(static_cast<std::size_t>(k * k));
  std::copy(hessian.begin(), hessian.end(), p.h.data());
  for (std::int64_t j = 0; j < k; ++j) {
    const auto at = static_cast<std::size_t>(j * k + j);
    float& d = p.h[at];
    d += factor.damping * d + factor.floor;
    p.added.push_back(d - hessian[at]);
  }
  const std::vector<float> importance = inverse_diagonal(p.u.data(), k);
  p.importance.resize(importance.size());
  for (std::size_t j = 0; j < importance.size(); ++j) {
    p.importance[static_cast<std::size_t>(p.order[j])] = importance[j];
  }
  prepare_units(p);
  NARROW_TRY(prepare_blocks(p, format_info(format).block_size));
  return p;
}

// Buffers of one thread.
struct Work {
  AlignedBuffer<float> open, errors, product;
  AlignedBuffer<float> g, y;  // [rows, k]: H (w - y), and what the rows decode to
  std::vector<float> a, m, ha, hm, delta;
  std::vector<CodeRow> rows;
};

// Decides the unit at columns [begin, begin + unit) of the order for one row; leaves e u^-1 in `err` and
// takes the error out of columns up to `end`.
void decide_unit(const Problem& p, std::int64_t begin, std::int64_t end, CodeRow& row, float* open,
                 float* err) {
  const std::int64_t k = p.k;
  if (p.unit == 1) {
    float y;
    row.decide(p.order[static_cast<std::size_t>(begin)], open + begin, nullptr, &y);
    const float* u = p.u.data() + begin * k;
    const float e = (open[begin] - y) / u[begin];
    err[0] = e;
    for (std::int64_t j = begin + 1; j < end; ++j) open[j] -= e * u[j];
    return;
  }
  const int n = p.unit;
  const auto at = static_cast<std::size_t>(begin / n) * static_cast<std::size_t>(n * n);
  float y[kMaxUnit];
  row.decide(p.order[static_cast<std::size_t>(begin)] / n, open + begin, p.metric.data() + at, y);
  for (int j = 0; j < n; ++j) {
    err[j] = 0;
    for (int i = 0; i < n; ++i) {
      err[j] += (open[begin + i] - y[i]) * p.inverse[at + static_cast<std::size_t>(i * n + j)];
    }
  }
  for (int i = 0; i < n; ++i) {
    const float* u = p.u.data() + (begin + i) * k;
    for (std::int64_t j = begin + n; j < end; ++j) open[j] -= err[i] * u[j];
  }
}

// Codes by error feedback for the rows of t.rows, whose scales are fitted; w [rows, k].
Status feed_back(const Problem& p, const float* w, Work& t) {
  const std::int64_t k = p.k, rows = static_cast<std::int64_t>(t.rows.size());
  float* open = t.open.data();
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < k; ++j) open[r * k + j] = w[r * k + p.order[static_cast<std::size_t>(j)]];
  }
  for (std::int64_t begin = 0; begin < k; begin += kColumns) {
    const std::int64_t end = std::min(k, begin + kColumns), count = end - begin;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = begin; i < end; i += p.unit) {
        decide_unit(p, i, end, t.rows[static_cast<std::size_t>(r)], open + r * k,
                    t.errors.data() + r * count + (i - begin));
      }
    }
    if (end == k) break;
    const std::int64_t rest = k - end;
    NARROW_TRY(ops::gemm_f32_single(false, rows, rest, count, 1.0f, t.errors.data(), count,
                                    p.u.data() + begin * k + end, k, t.product.data(), rest));
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* from = t.product.data() + r * rest;
      float* to = open + r * k + end;
      for (std::int64_t j = 0; j < rest; ++j) to[j] -= from[j];
    }
  }
  return {};
}

// Columns [begin, end) of a row while they are refined: g and y [k] are kept up to date in them alone.
struct Chunk {
  std::int64_t begin, end;
  float *g, *y;
};

// g -= H[:, at .. at + n) * delta, in the chunk's columns.
void move(const Problem& p, const Chunk& c, std::int64_t at, std::int64_t n, const float* delta) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float d = delta[i];
    if (d == 0) continue;
    const float* h = p.h.data() + (at + i) * p.k;
    for (std::int64_t j = c.begin; j < c.end; ++j) c.g[j] -= d * h[j];
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

double wide_dot(const float* a, const float* b, std::int64_t n) { return static_cast<double>(dot(a, b, n)); }

// Least squares for the factors of block b, codes as they are.
void refit(const Problem& p, const Chunk& c, std::int64_t b, CodeRow& row, Work& t) {
  const std::int64_t block = row.block(), begin = b * block;
  const float* g = c.g;
  float d, dmin;
  if (!row.directions(b, &d, &dmin, t.a.data(), t.m.data())) return;
  const bool has_min = row.has_min();
  for (std::int64_t i = 0; i < block; ++i) {
    const float* h = p.h.data() + (begin + i) * p.k + begin;
    t.ha[static_cast<std::size_t>(i)] = dot(h, t.a.data(), block);
    if (has_min) t.hm[static_cast<std::size_t>(i)] = dot(h, t.m.data(), block);
  }
  const double aa = wide_dot(t.a.data(), t.ha.data(), block), ag = wide_dot(t.a.data(), g + begin, block);
  if (!(aa > 0)) return;
  double step = ag / aa, step_min = 0;
  if (has_min) {
    const double am = wide_dot(t.a.data(), t.hm.data(), block), mm = wide_dot(t.m.data(), t.hm.data(), block);
    const double mg = wide_dot(t.m.data(), g + begin, block), det = aa * mm - am * am;
    if (det > 1e-6 * aa * mm) {
      step = (ag * mm - mg * am) / det;
      step_min = (mg * aa - ag * am) / det;
    }
  }
  const float new_d = round_to_f16(d + static_cast<float>(step));
  const float new_min = round_to_f16(dmin + static_cast<float>(step_min));
  if ((new_d == d && new_min == dmin) || !std::isfinite(new_d) || !std::isfinite(new_min)) return;
  double loss = 0;  // what the step changes once it is rounded
  for (std::int64_t i = 0; i < block; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float by = new_d - d, by_min = new_min - dmin;
    t.delta[at] = by * t.a[at] + (has_min ? by_min * t.m[at] : 0.0f);
    const float hd = by * t.ha[at] + (has_min ? by_min * t.hm[at] : 0.0f);
    loss += static_cast<double>(t.delta[at]) *
            (static_cast<double>(hd) - 2.0 * static_cast<double>(g[begin + i]));
  }
  if (!(loss < 0)) return;
  row.set_factors(b, new_d, new_min);
  std::copy_n(c.y + begin, block, t.ha.begin());
  row.block_values(b, c.y + begin);
  for (std::int64_t i = 0; i < block; ++i) {
    const auto at = static_cast<std::size_t>(i);
    t.delta[at] = c.y[begin + i] - t.ha[at];
  }
  move(p, c, begin, block, t.delta.data());
}

// Block b encoded anew, scales and all, for the values that would be best with the rest of the row as it is;
// kept where that lowers the error. The first scales knew nothing of what error feedback would do.
void encode_again(const Problem& p, const Chunk& c, std::int64_t b, bool search, CodeRow& row, Work& t) {
  const std::int64_t block = row.block(), begin = b * block;
  const float* g = c.g;
  const float* u = p.block_u.data() + b * block * block;
  std::copy_n(c.y + begin, block, t.a.begin());
  // m = y + u^T (u g)
  for (std::int64_t i = 0; i < block; ++i) {
    t.ha[static_cast<std::size_t>(i)] = dot(u + i * block + i, g + begin + i, block - i);
  }
  std::copy(t.a.begin(), t.a.end(), t.m.begin());
  for (std::int64_t i = 0; i < block; ++i) {
    const float v = t.ha[static_cast<std::size_t>(i)];
    for (std::int64_t j = i; j < block; ++j) t.m[static_cast<std::size_t>(j)] += v * u[i * block + j];
  }
  row.encode_block(b, t.m.data(), p.block_importance.data() + begin, search);
  row.block_values(b, t.hm.data());
  double loss = 0;
  for (std::size_t i = 0; i < t.delta.size(); ++i) t.delta[i] = t.hm[i] - t.a[i];
  for (std::int64_t i = 0; i < block; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float hd = dot(p.h.data() + (begin + i) * p.k + begin, t.delta.data(), block);
    loss += static_cast<double>(t.delta[at]) *
            (static_cast<double>(hd) - 2.0 * static_cast<double>(g[begin + i]));
  }
  if (loss < 0) {
    std::copy(t.hm.begin(), t.hm.end(), c.y + begin);
    move(p, c, begin, block, t.delta.data());
  } else {
    row.restore_block(b);
  }
}

// Coordinate descent over the chunk's codes. False when nothing changed.
bool improve(const Problem& p, const Chunk& c, CodeRow& row) {
  const int n = p.unit;
  bool changed = false;
  float target[kMaxUnit], now[kMaxUnit], delta[kMaxUnit];
  for (std::int64_t j = c.begin; j < c.end; j += n) {
    const float* metric = nullptr;
    float* y = c.y + j;
    if (n == 1) {
      target[0] = y[0] + c.g[j] / p.h[static_cast<std::size_t>(j * p.k + j)];
    } else {
      const auto at = static_cast<std::size_t>(j / n) * static_cast<std::size_t>(n * n);
      metric = p.block_metric.data() + at;
      for (int i = 0; i < n; ++i) target[i] = y[i] + dot(p.block_inverse.data() + at + i * n, c.g + j, n);
    }
    row.decide(j / n, target, metric, now);
    bool same = true;
    for (int i = 0; i < n; ++i) {
      delta[i] = now[i] - y[i];
      same = same && delta[i] == 0;
      y[i] = now[i];
    }
    if (same) continue;
    move(p, c, j, n, delta);
    changed = true;
  }
  return changed;
}

// step(row's number, chunk) for `rows` chunk by chunk. What a chunk's changes mean for all other columns
// reaches them in one product for all rows, as in feed_back().
template <class Step>
Status each_chunk(const Problem& p, const std::vector<std::size_t>& rows, std::int64_t width, Work& t,
                  const Step& step) {
  const std::int64_t k = p.k;
  std::vector<float*> moved;
  for (std::int64_t begin = 0; begin < k; begin += width) {
    const std::int64_t end = std::min(k, begin + width), n = end - begin;
    moved.clear();
    for (const std::size_t r : rows) {
      const Chunk c{begin, end, t.g.data() + static_cast<std::int64_t>(r) * k,
                    t.y.data() + static_cast<std::int64_t>(r) * k};
      float* delta = t.errors.data() + static_cast<std::int64_t>(moved.size()) * n;
      std::copy_n(c.y + begin, n, delta);
      step(r, c);
      bool same = true;
      for (std::int64_t j = 0; j < n; ++j) {
        delta[j] = c.y[begin + j] - delta[j];
        same = same && delta[j] == 0;
      }
      if (!same) moved.push_back(c.g);
    }
    if (moved.empty()) continue;
    const std::pair<std::int64_t, std::int64_t> others[] = {{0, begin}, {end, k}};
    for (const auto& [from, to] : others) {
      const std::int64_t count = to - from;
      if (count == 0) continue;
      NARROW_TRY(ops::gemm_f32_single(false, static_cast<std::int64_t>(moved.size()), count, n, 1.0f,
                                      t.errors.data(), n, p.h.data() + begin * k + from, k, t.product.data(),
                                      count));
      const float* by = t.product.data();
      for (float* g : moved) {
        for (std::int64_t j = from; j < to; ++j) g[j] -= *by++;
      }
    }
  }
  return {};
}

// Codes and scales of the rows of t.rows, given what error feedback made of them, by descent on the same
// loss. Leaves in t.y what they decode to, in t.g H (w - y).
Status refine(const Problem& p, bool search, const float* w, Work& t) {
  const std::int64_t k = p.k, block = t.rows.front().block();
  const auto count = static_cast<std::int64_t>(t.rows.size());
  for (auto* v : {&t.a, &t.m, &t.ha, &t.hm, &t.delta}) v->resize(static_cast<std::size_t>(block));
  std::vector<std::size_t> rows;
  for (std::int64_t r = 0; r < count; ++r) {
    rows.push_back(static_cast<std::size_t>(r));
    t.rows[static_cast<std::size_t>(r)].values(t.y.data() + r * k);
  }
  float* d = t.open.data();
  for (std::int64_t i = 0; i < count * k; ++i) d[i] = w[i] - t.y[static_cast<std::size_t>(i)];
  NARROW_TRY(ops::gemm_f32_single(false, count, k, k, 1.0f, d, k, p.h.data(), k, t.g.data(), k));
  const std::int64_t width = std::max(kColumns, block);
  // A block with one scale has no more to gain than the factors' least squares give it.
  if (block > kOneScale) {
    NARROW_TRY(each_chunk(p, rows, width, t, [&](std::size_t r, const Chunk& c) {
      for (std::int64_t b = c.begin / block; b < c.end / block; ++b)
        encode_again(p, c, b, search, t.rows[r], t);
    }));
  }
  std::vector<bool> changed(t.rows.size());
  for (int sweep = 0; sweep < kSweeps && !rows.empty(); ++sweep) {
    changed.assign(changed.size(), false);
    NARROW_TRY(each_chunk(p, rows, width, t, [&](std::size_t r, const Chunk& c) {
      for (std::int64_t b = c.begin / block; b < c.end / block; ++b) refit(p, c, b, t.rows[r], t);
      if (improve(p, c, t.rows[r])) changed[r] = true;
    }));
    std::erase_if(rows, [&](std::size_t r) { return !changed[r]; });
  }
  return {};
}

// Squared output errors of `rows` rows: d [rows, k] = exact - stored.
Status row_errors(std::int64_t rows, std::int64_t k, const float* d, std::span<const float> hessian,
                  AlignedBuffer<float>& product, std::vector<double>& out) {
  product.reserve_at_least(static_cast<std::size_t>(rows * k));
  NARROW_TRY(ops::gemm_f32_single(false, rows, k, k, 1.0f, d, k, hessian.data(), k, product.data(), k));
  out.assign(static_cast<std::size_t>(rows), 0.0);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < k; ++j) {
      out[static_cast<std::size_t>(r)] += static_cast<double>(d[r * k + j]) *
                                          static_cast<double>(product[static_cast<std::size_t>(r * k + j)]);
    }
  }
  return {};
}

// d = w - what the stored rows decode to.
void differences(const float* w, const std::byte* stored, Format format, std::int64_t rows, std::int64_t k,
                 float* d) {
  const std::size_t stride = row_bytes(format, k);
  for (std::int64_t r = 0; r < rows; ++r) {
    format_info(format).decode(stored + static_cast<std::size_t>(r) * stride, d + r * k, k);
    for (std::int64_t j = 0; j < k; ++j) d[r * k + j] = w[r * k + j] - d[r * k + j];
  }
}

Status encode_rows(const Problem& p, const QuantizeSpec& spec, const float* w, std::int64_t rows,
                   std::byte* dst, Work& t) {
  const std::int64_t k = p.k;
  const std::size_t stride = row_bytes(spec.format, k);
  for (auto* b : {&t.open, &t.g, &t.y, &t.product}) b->reserve_at_least(static_cast<std::size_t>(kRows * k));
  t.errors.reserve_at_least(static_cast<std::size_t>(
      kRows * std::max<std::int64_t>(kColumns, format_info(spec.format).block_size)));
  t.rows.clear();
  std::vector<std::byte> nearest(static_cast<std::size_t>(rows) * stride);
  for (std::int64_t r = 0; r < rows; ++r) {
    CodeRow& row = t.rows.emplace_back(spec.format, k);
    row.fit(w + r * k, p.importance.data(), spec.search);
    std::memcpy(nearest.data() + static_cast<std::size_t>(r) * stride, row.stored(), stride);
  }
  NARROW_TRY(feed_back(p, w, t));
  NARROW_TRY(refine(p, spec.search, w, t));
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(dst + static_cast<std::size_t>(r) * stride, t.rows[static_cast<std::size_t>(r)].stored(),
                stride);
  }
  // g is of the damped Hessian.
  std::vector<double> chosen(static_cast<std::size_t>(rows), 0.0), rounded;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < k; ++j) {
      const auto at = static_cast<std::size_t>(r * k + j);
      const float d = w[at] - t.y[at];
      chosen[static_cast<std::size_t>(r)] +=
          static_cast<double>(d) * static_cast<double>(t.g[at] - p.added[static_cast<std::size_t>(j)] * d);
    }
  }
  differences(w, nearest.data(), spec.format, rows, k, t.open.data());
  NARROW_TRY(row_errors(rows, k, t.open.data(), p.exact, t.product, rounded));
  for (std::size_t r = 0; r < chosen.size(); ++r) {
    if (rounded[r] < chosen[r]) std::memcpy(dst + r * stride, nearest.data() + r * stride, stride);
  }
  return {};
}

}  // namespace

Result<double> output_error(const float* exact, const std::byte* stored, Format format, std::int64_t n,
                            std::int64_t k, std::span<const float> hessian,
                            std::span<const float> output_metric) {
  const std::size_t stride = row_bytes(format, k);
  AlignedBuffer<float> lost, joined;  // D and G D, [n, k], where there is a G
  const bool metric = !output_metric.empty();
  if (metric) {
    lost.resize(static_cast<std::size_t>(n * k));
    joined.resize(lost.size());
  }
  const auto differences_of = [&](std::int64_t begin, std::int64_t rows, float* d) {
    if (stored == nullptr) {
      std::copy_n(exact + begin * k, rows * k, d);
    } else {
      differences(exact + begin * k, stored + static_cast<std::size_t>(begin) * stride, format, rows, k, d);
    }
  };
  const auto items = static_cast<std::size_t>((n + kRows - 1) / kRows);
  std::vector<double> partial(items, 0.0);
  std::vector<Status> status(items);
  const auto threads = static_cast<std::size_t>(thread_count());
  std::vector<AlignedBuffer<float>> d(threads), product(threads);
  // f(item, first row, rows, thread)
  const auto each = [&](const auto& f) -> Status {
    parallel_for(static_cast<std::int64_t>(items), [&](std::int64_t item, int thread) {
      const std::int64_t begin = item * kRows;
      status[static_cast<std::size_t>(item)] =
          f(static_cast<std::size_t>(item), begin, std::min(kRows, n - begin),
            static_cast<std::size_t>(thread));
    });
    for (const Status& s : status) NARROW_TRY(s);
    return {};
  };
  if (metric) {
    NARROW_TRY(each([&](std::size_t, std::int64_t begin, std::int64_t rows, std::size_t) -> Status {
      differences_of(begin, rows, lost.data() + begin * k);
      return {};
    }));
    NARROW_TRY(each([&](std::size_t, std::int64_t begin, std::int64_t rows, std::size_t) {
      return ops::gemm_f32_single(false, rows, k, n, 1.0f, output_metric.data() + begin * n, n, lost.data(),
                                  k, joined.data() + begin * k, k);
    }));
  }
  const auto add_up = [&](std::size_t item, std::int64_t begin, std::int64_t rows, std::size_t t) -> Status {
    d[t].reserve_at_least(static_cast<std::size_t>(kRows * k));
    product[t].reserve_at_least(static_cast<std::size_t>(kRows * k));
    if (metric) {
      std::copy_n(lost.data() + begin * k, rows * k, d[t].data());
    } else {
      differences_of(begin, rows, d[t].data());
    }
    NARROW_TRY(ops::gemm_f32_single(false, rows, k, k, 1.0f, d[t].data(), k, hessian.data(), k,
                                    product[t].data(), k));
    const float* with = metric ? joined.data() + begin * k : d[t].data();
    for (std::int64_t j = 0; j < rows * k; ++j) {
      partial[item] +=
          static_cast<double>(with[j]) * static_cast<double>(product[t][static_cast<std::size_t>(j)]);
    }
    return {};
  };
  NARROW_TRY(each(add_up));
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

Status quantize_gptq(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  NARROW_TRY(check_matrix("gptq", spec.format, n, k, stats));
  if (!CodeRow::supports(spec.format)) {
    return make_error(ErrorCode::kUnsupported, "gptq: {} has no codes that can be chosen one by one",
                      format_info(spec.format).name);
  }
  if (stats.hessian.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "gptq needs the Hessian of the layer's inputs");
  }
  NARROW_ASSIGN(const Problem p, make_problem(k, spec.format, stats.hessian,
                                              spec.damping > 0 ? spec.damping : kDefaultDamping));
  std::vector<Work> work(static_cast<std::size_t>(thread_count()));
  return encode_stretches(
      w, n, k, spec.format, stats.output, kRows,
      [&](const float* rows, std::int64_t count, std::byte* dst, int thread) {
        return encode_rows(p, spec, rows, count, dst, work[static_cast<std::size_t>(thread)]);
      },
      out, error);
}

}  // namespace narrow::quant

#include "ops/hadamard.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "base/thread_team.h"

namespace narrow::ops {
namespace {

bool is_prime(std::int64_t n) {
  if (n < 2) return false;
  for (std::int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// 1 for a square modulo the prime p, -1 for another number, 0 for a multiple of p.
std::vector<int> quadratic_characters(std::int64_t p) {
  std::vector<int> c(static_cast<std::size_t>(p), -1);
  c[0] = 0;
  for (std::int64_t i = 1; i < p; ++i) c[static_cast<std::size_t>(i * i % p)] = 1;
  return c;
}

// Paley's first construction: order p + 1, p = 3 mod 4.
std::vector<int> paley_one(std::int64_t p) {
  const std::vector<int> chi = quadratic_characters(p);
  const std::int64_t n = p + 1;
  std::vector<int> h(static_cast<std::size_t>(n * n), 1);
  for (std::int64_t i = 1; i < n; ++i) {
    for (std::int64_t j = 1; j < n; ++j) {
      // The Jacobsthal matrix minus the identity.
      h[static_cast<std::size_t>(i * n + j)] = i == j ? -1 : chi[static_cast<std::size_t>((j - i + p) % p)];
    }
  }
  return h;
}

// Paley's second: order 2 (p + 1), p = 1 mod 4, from the symmetric conference matrix of order p + 1.
std::vector<int> paley_two(std::int64_t p) {
  const std::vector<int> chi = quadratic_characters(p);
  const std::int64_t half = p + 1, n = 2 * half;
  std::vector<int> h(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < half; ++i) {
    for (std::int64_t j = 0; j < half; ++j) {
      int c = 1;
      if (i == j) {
        c = 0;
      } else if (i > 0 && j > 0) {
        c = chi[static_cast<std::size_t>((j - i + p) % p)];
      }
      // 0 becomes [[1, -1], [-1, -1]], c becomes c [[1, 1], [1, -1]].
      const int a = c == 0 ? 1 : c, b = c == 0 ? -1 : c, d = c == 0 ? -1 : -c;
      int* at = h.data() + 2 * i * n + 2 * j;
      at[0] = a;
      at[1] = at[n] = b;
      at[n + 1] = d;
    }
  }
  return h;
}

// A Hadamard matrix of this order whose first row is all ones; empty where neither construction has one.
std::vector<int> paley(std::int64_t order) {
  std::vector<int> h;
  if (order % 4 == 0 && is_prime(order - 1)) {
    h = paley_one(order - 1);
  } else if (order % 4 == 0 && is_prime(order / 2 - 1) && (order / 2 - 1) % 4 == 1) {
    h = paley_two(order / 2 - 1);
  }
  if (h.empty()) return h;
  for (std::int64_t j = 0; j < order; ++j) {  // columns may change sign
    const int sign = h[static_cast<std::size_t>(j)];
    for (std::int64_t i = 0; i < order; ++i) h[static_cast<std::size_t>(i * order + j)] *= sign;
  }
  return h;
}

// Rows orthonormal, the first one constant, the others random (Gram-Schmidt, twice against rounding).
std::vector<float> random_orthogonal(std::int64_t n, Rng& rng) {
  std::vector<double> q(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    double* row = q.data() + i * n;
    for (std::int64_t j = 0; j < n; ++j) row[j] = i == 0 ? 1.0 : static_cast<double>(rng.normal());
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t e = 0; e < i; ++e) {
        const double* other = q.data() + e * n;
        double dot = 0;
        for (std::int64_t j = 0; j < n; ++j) dot += row[j] * other[j];
        for (std::int64_t j = 0; j < n; ++j) row[j] -= dot * other[j];
      }
    }
    double norm = 0;
    for (std::int64_t j = 0; j < n; ++j) norm += row[j] * row[j];
    for (std::int64_t j = 0; j < n; ++j) row[j] /= std::sqrt(norm);
  }
  return {q.begin(), q.end()};
}

}  // namespace

Rotation::Rotation(std::int64_t n, std::uint64_t seed, bool keeps_mean) : n_(n), keeps_mean_(keeps_mean) {
  Rng rng(seed);
  for (std::int64_t i = 0; i < n; ++i) signs_.push_back(rng.next_u64() >> 63 ? -1.0f : 1.0f);
  if (keeps_mean) signs_[0] = 1.0f;
  std::int64_t odd = n;
  while (odd % 2 == 0) odd /= 2;
  s_ = n / odd;
  q_ = odd;
  if (odd == 1) {
    outer_ = {1.0f};
    return;
  }
  for (std::int64_t order = 4 * odd; n % order == 0; order *= 2) {
    const std::vector<int> h = paley(order);
    if (h.empty()) continue;
    q_ = order;
    s_ = n / order;
    const float unit = static_cast<float>(1.0 / std::sqrt(static_cast<double>(order)));
    for (const int e : h) outer_.push_back(unit * static_cast<float>(e));
    return;
  }
  hadamard_ = false;
  outer_ = random_orthogonal(odd, rng);
}

void Rotation::signs(float* x, std::int64_t inner) const {
  for (std::int64_t i = 0; i < n_; ++i) {
    const float sign = signs_[static_cast<std::size_t>(i)];
    for (std::int64_t c = 0; c < inner; ++c) x[i * inner + c] *= sign;
  }
}

// x as [q, s, inner]: W over the middle index, Q or its transpose over the first.
void Rotation::mix(float* x, std::int64_t inner, bool transposed, float* scratch) const {
  const std::int64_t block = s_ * inner;
  for (std::int64_t width = 1; width < s_; width *= 2) {
    for (std::int64_t i = 0; i < q_ * s_; i += 2 * width) {
      float *a = x + i * inner, *b = a + width * inner;
      for (std::int64_t c = 0; c < width * inner; ++c) {
        const float sum = a[c] + b[c], difference = a[c] - b[c];
        a[c] = sum;
        b[c] = difference;
      }
    }
  }
  const float unit = static_cast<float>(1.0 / std::sqrt(static_cast<double>(s_)));
  for (std::int64_t i = 0; i < q_; ++i) {
    float* out = scratch + i * block;
    std::fill(out, out + block, 0.0f);
    for (std::int64_t j = 0; j < q_; ++j) {
      const float f = unit * outer_[static_cast<std::size_t>(transposed ? j * q_ + i : i * q_ + j)];
      const float* in = x + j * block;
      for (std::int64_t c = 0; c < block; ++c) out[c] += f * in[c];
    }
  }
  std::copy(scratch, scratch + n_ * inner, x);
}

void Rotation::apply(float* x, std::int64_t inner, float* scratch) const {
  if (keeps_mean_) mix(x, inner, false, scratch);
  signs(x, inner);
  mix(x, inner, keeps_mean_, scratch);
}

void Rotation::apply_transposed(float* x, std::int64_t inner, float* scratch) const {
  if (keeps_mean_) return apply(x, inner, scratch);  // symmetric
  mix(x, inner, true, scratch);
  signs(x, inner);
}

void rotate_inputs(const Rotation& r, float* w, std::int64_t rows, std::int64_t k) {
  const std::int64_t n = r.size(), blocks = k / n;
  constexpr std::int64_t kRows = 16;
  std::vector<std::vector<float>> scratch(static_cast<std::size_t>(thread_count()));
  parallel_for((rows + kRows - 1) / kRows, [&](std::int64_t item, int thread) {
    std::vector<float>& s = scratch[static_cast<std::size_t>(thread)];
    s.resize(static_cast<std::size_t>(2 * n * kRows));
    float *turned = s.data(), *other = turned + n * kRows;
    const std::int64_t begin = item * kRows, count = std::min(kRows, rows - begin);
    // Rows become the inner dimension, so that they are turned together.
    for (std::int64_t b = 0; b < blocks; ++b) {
      float* at = w + begin * k + b * n;
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t j = 0; j < n; ++j) turned[j * count + i] = at[i * k + j];
      }
      r.apply(turned, count, other);
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t j = 0; j < n; ++j) at[i * k + j] = turned[j * count + i];
      }
    }
  });
}

void rotate_outputs(const Rotation& r, float* w, std::int64_t rows, std::int64_t k) {
  const std::int64_t n = r.size(), blocks = rows / n;
  constexpr std::int64_t kColumns = 32;
  const std::int64_t pieces = (k + kColumns - 1) / kColumns;
  std::vector<std::vector<float>> scratch(static_cast<std::size_t>(thread_count()));
  parallel_for(blocks * pieces, [&](std::int64_t item, int thread) {
    std::vector<float>& s = scratch[static_cast<std::size_t>(thread)];
    s.resize(static_cast<std::size_t>(2 * n * kColumns));
    float *turned = s.data(), *other = turned + n * kColumns;
    const std::int64_t begin = item % pieces * kColumns, count = std::min(kColumns, k - begin);
    float* at = w + item / pieces * n * k + begin;
    for (std::int64_t j = 0; j < n; ++j) std::copy(at + j * k, at + j * k + count, turned + j * count);
    r.apply(turned, count, other);
    for (std::int64_t j = 0; j < n; ++j) std::copy(turned + j * count, turned + (j + 1) * count, at + j * k);
  });
}

}  // namespace narrow::ops

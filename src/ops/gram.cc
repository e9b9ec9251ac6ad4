#include "ops/gram.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"
#include "ops/gemm.h"

namespace narrow::ops {
namespace {

constexpr std::int64_t kTile = 192;

// Sides of the squares that are transposed at once. Rows of the transpose lie far apart, often by a multiple
// of a page: whole cache lines are written, not single values.
constexpr std::int64_t kSquare = 16;

// [cols, rows], for products of columns.
AlignedBuffer<float> transposed(ConstMatrix x) {
  AlignedBuffer<float> t(static_cast<std::size_t>(x.rows * x.cols));
  parallel_for((x.cols + kSquare - 1) / kSquare, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kSquare, count = std::min(kSquare, x.cols - begin);
    float square[kSquare][kSquare];
    for (std::int64_t r = 0; r < x.rows; r += kSquare) {
      const std::int64_t rows = std::min(kSquare, x.rows - r);
      for (std::int64_t i = 0; i < rows; ++i) {
        const float* from = x.row(r + i) + begin;
        for (std::int64_t j = 0; j < count; ++j) square[j][i] = from[j];
      }
      for (std::int64_t j = 0; j < count; ++j) {
        std::copy_n(square[j], rows, t.data() + (begin + j) * x.rows + r);
      }
    }
  });
  return t;
}

// The tiles of c[n_a, n_b] += at * bt^T, those above the diagonal left out where `lower`.
Status add_tiles(const float* at, std::int64_t n_a, const float* bt, std::int64_t n_b, std::int64_t m,
                 bool lower, float* c) {
  struct Tile {
    std::int64_t i, j;
  };
  std::vector<Tile> tiles;
  for (std::int64_t i = 0; i < n_a; i += kTile) {
    for (std::int64_t j = 0; j < n_b; j += kTile) {
      if (!lower || j <= i) tiles.push_back({i, j});
    }
  }
  std::vector<AlignedBuffer<float>> scratch(static_cast<std::size_t>(thread_count()));
  for (auto& s : scratch) s.resize(kTile * kTile);
  std::atomic<bool> failed{false};
  std::vector<Error> errors(1);
  parallel_for(static_cast<std::int64_t>(tiles.size()), [&](std::int64_t item, int thread) {
    const Tile t = tiles[static_cast<std::size_t>(item)];
    const std::int64_t rows = std::min(kTile, n_a - t.i), cols = std::min(kTile, n_b - t.j);
    float* sum = scratch[static_cast<std::size_t>(thread)].data();
    const Status s = gemm_f32_single(true, rows, cols, m, 1.0f, at + t.i * m, m, bt + t.j * m, m, sum, kTile);
    if (!s.ok()) {
      if (!failed.exchange(true)) errors[0] = s.error();
      return;
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      float* out = c + (t.i + i) * n_b + t.j;
      for (std::int64_t j = 0; j < cols; ++j) out[j] += sum[i * kTile + j];
    }
  });
  if (failed) return errors[0];
  return {};
}

}  // namespace

Status add_gram(ConstMatrix x, float* g) {
  if (x.rows == 0) return {};
  const AlignedBuffer<float> t = transposed(x);
  return add_tiles(t.data(), x.cols, t.data(), x.cols, x.rows, true, g);
}

void fill_upper(std::int64_t k, float* g) {
  parallel_for((k + kSquare - 1) / kSquare, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kSquare, end = std::min(k, begin + kSquare);
    for (std::int64_t r = begin; r < k; r += kSquare) {
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t j = std::max(r, i + 1); j < std::min(k, r + kSquare); ++j)
          g[i * k + j] = g[j * k + i];
      }
    }
  });
}

Status add_cross(ConstMatrix a, ConstMatrix b, float* c) {
  if (a.rows != b.rows) {
    return make_error(ErrorCode::kInvalidArgument, "cross moments of {} and {}: rows must be as many",
                      a.shape().text(), b.shape().text());
  }
  if (a.rows == 0) return {};
  const AlignedBuffer<float> at = transposed(a), bt = transposed(b);
  return add_tiles(at.data(), a.cols, bt.data(), b.cols, a.rows, false, c);
}

}  // namespace narrow::ops

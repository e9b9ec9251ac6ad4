// AttentionKernels::attend over the vector V of an instruction set: page by page, every tile of kMaxRows
// query rows meets the page's keys, updates its running maximum and sum, and adds the page's values. A page
// is made into floats once for all tiles; when there is one tile only (decode), its products read the stored
// form. The order of operations is fixed by kernels/attention.h: nothing here may depend on the vector's
// width.
#pragma once

#include <cstring>
#include <limits>

#include "kernels/attention.h"
#include "kernels/attention/loaders.h"
#include "kernels/attention/store.h"
#include "kernels/attention/tile.h"

namespace narrow::kernels::attention {

template <class V, class F>
static inline void with_keys(const HeadLayout& l, const std::byte* head, F f) {
  const std::int64_t panel_elements = l.head_dim * kPanelPositions;
  switch (l.keys) {
    case Format::kF32:
      return f(RealLoader<V, float>{reinterpret_cast<const float*>(head), 16, panel_elements});
    case Format::kF16:
      return f(
          RealLoader<V, std::uint16_t>{reinterpret_cast<const std::uint16_t*>(head), 16, panel_elements});
    case Format::kQ8_0:
      return f(QuantizedKeys<V, false>(head, l.head_dim, l.panel_bytes));
    default:
      return f(QuantizedKeys<V, true>(head, l.head_dim, l.panel_bytes));
  }
}

template <class V, class F>
static inline void with_values(const HeadLayout& l, const std::byte* head, F f) {
  const std::byte* rows = head + l.values_offset;
  switch (l.values) {
    case Format::kF32:
      return f(RealLoader<V, float>{reinterpret_cast<const float*>(rows), l.padded_dim, 16});
    case Format::kF16:
      return f(RealLoader<V, std::uint16_t>{reinterpret_cast<const std::uint16_t*>(rows), l.padded_dim, 16});
    case Format::kQ8_0:
      return f(QuantizedValues<V, false>{rows, l.value_row_bytes, 0});
    default:
      return f(QuantizedValues<V, true>{rows, l.value_row_bytes, 0});
  }
}

// Positions of a page, relative to its start.
struct Range {
  std::int64_t begin, end;
};

// The positions of `visited` that the query at `position` (relative to the page's start too) sees.
static inline Range seen(Range visited, std::int64_t position, std::int64_t window) {
  Range r = visited;
  if (window > 0 && position - window + 1 > r.begin) r.begin = position - window + 1;
  if (position + 1 < r.end) r.end = position + 1;
  return r;
}

// Scores are kept in units of ln 2, so that their exponentials are powers of two.
inline constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
// Maximum of a row that has seen nothing: below every score, but finite, so that no difference is NaN.
inline constexpr float kNothing = -1e30f;

// cap * tanh(x / cap), tanh z = 1 - 2 / (e^2z + 1)
template <class V>
static inline typename V::F cap_scores(typename V::F x, float cap) {
  const typename V::F one = V::set1(1.0f), limit = V::set1(60.0f);  // tanh is 1 long before
  const typename V::F e = V::exp2(V::min(V::mul(x, V::set1(2.0f * kLog2E / cap)), limit));
  return V::mul(V::set1(cap * kLog2E), V::sub(one, V::div(V::set1(2.0f), V::add(e, one))));
}

// The running maximum and sum of each query row.
struct Softmax {
  float* max;   // [rows]
  float* sums;  // [rows, 16]: by position % 16
};

// Scores [rows, P panels] of consecutive query rows to 2^(s - max), zero where a row does not see; factors
// are what the rows' earlier sums must be multiplied by. ranges: what each row sees, from the first
// panel's start. In passes over the rows, so that one row's latencies hide behind the others'.
template <class V, int P>
static inline void softmax_panels(int rows, float* scores, const Range* ranges, float softcap,
                                  Softmax running, float* factors) {
  constexpr int kVectors = P * Panel<V>::kVectors;
  alignas(64) float old[16] = {}, max[16] = {};
  for (int r = 0; r < rows; ++r) {
    float* s = scores + r * kPagePositions;
    const bool masked = ranges[r].begin > 0 || ranges[r].end < 16 * P;
    typename V::F x[kVectors];
    NARROW_UNROLL
    for (int v = 0; v < kVectors; ++v) x[v] = V::load(s + v * V::kWidth);
    if (masked || softcap != 0.0f) {
      for (int v = 0; v < kVectors; ++v) {
        if (softcap != 0.0f) x[v] = cap_scores<V>(x[v], softcap);
        if (masked) x[v] = V::keep(x[v], ranges[r].begin - v * V::kWidth, ranges[r].end - v * V::kWidth);
        V::store(s + v * V::kWidth, x[v]);
      }
    }
    typename V::F top = x[0];
    NARROW_UNROLL
    for (int v = 1; v < kVectors; ++v) top = V::max(top, x[v]);
    const float most = V::reduce_max(top);
    old[r] = running.max[r];
    max[r] = most > old[r] ? most : old[r];
    running.max[r] = max[r];
  }
  for (int r = 0; r < rows; r += V::kWidth) {
    V::store(factors + r, V::exp2(V::sub(V::load(old + r), V::load(max + r))));
  }
  for (int r = 0; r < rows; ++r) {
    float* s = scores + r * kPagePositions;
    const typename V::F shift = V::set1(max[r]);
    typename V::F x[kVectors];
    NARROW_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      x[v] = V::exp2(V::sub(V::load(s + v * V::kWidth), shift));
      V::store(s + v * V::kWidth, x[v]);
    }
    const typename V::F factor = V::set1(factors[r]);
    NARROW_UNROLL
    for (int i = 0; i < Panel<V>::kVectors; ++i) {
      typename V::F total = x[i];
      NARROW_UNROLL
      for (int p = 1; p < P; ++p) total = V::add(total, x[p * Panel<V>::kVectors + i]);
      float* sums = running.sums + r * 16 + i * V::kWidth;
      V::store(sums, V::fma(V::load(sums), factor, total));
    }
  }
}

template <class V>
static void softmax_tile(int rows, std::int64_t panels, float* scores, const Range* ranges, float softcap,
                         Softmax running, float* factors) {
  switch (panels) {
    case 1:
      return softmax_panels<V, 1>(rows, scores, ranges, softcap, running, factors);
    case 2:
      return softmax_panels<V, 2>(rows, scores, ranges, softcap, running, factors);
    case 3:
      return softmax_panels<V, 3>(rows, scores, ranges, softcap, running, factors);
    default:
      return softmax_panels<V, 4>(rows, scores, ranges, softcap, running, factors);
  }
}

static inline float add_lanes(const float* lanes) {
  float eight[8], four[4];
  NARROW_UNROLL
  for (int i = 0; i < 8; ++i) eight[i] = lanes[i] + lanes[i + 8];
  NARROW_UNROLL
  for (int i = 0; i < 4; ++i) four[i] = eight[i] + eight[i + 4];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// Queries times the scale, rotated as the keys are: out [rows, head_dim].
template <class V>
static void pack_queries(const HeadLayout& l, const AttentionItem& item, float* out) {
  const float scale = item.softcap == 0.0f ? item.scale * kLog2E : item.scale;
  for (std::int64_t t = 0; t < item.tokens; ++t) {
    const float* from = item.q + t * item.q_stride;
    float* to = out + t * item.group * l.head_dim;
    for (std::int64_t i = 0; i < item.group * l.head_dim; ++i) to[i] = scale * from[i];
  }
  if (l.rotation > 1) hadamard<V>(out, item.rows() * l.head_dim, l.rotation);
}

template <class V>
static void attend(const HeadLayout& l, const AttentionItem& item, float* acc, float* max, float* sum,
                   float* scratch) {
  const std::int64_t rows = item.rows(), d = l.head_dim, padded = l.padded_dim;
  float* scores = scratch;  // [kMaxRows, kPagePositions]
  float* factors = scores + kMaxRows * kPagePositions;
  float* key_floats = scratch + kAttentionTileFloats;
  float* value_floats = key_floats + kPagePositions * padded;
  float* queries = value_floats + kPagePositions * padded;
  const Softmax running = {max, queries + (rows * d + 15) / 16 * 16};

  const bool as_floats = rows > kMaxRows;
  if (!as_floats) {
    const std::byte* keys = item.pages[item.begin / kPagePositions] + item.offset;
    for (std::size_t i = 0; i < l.values_offset; i += 64) __builtin_prefetch(keys + i, 0, 2);
  }
  pack_queries<V>(l, item, queries);
  for (std::int64_t i = 0; i < rows * padded; ++i) acc[i] = 0.0f;
  for (std::int64_t r = 0; r < rows; ++r) {
    max[r] = kNothing;
    for (int i = 0; i < 16; ++i) running.sums[r * 16 + i] = 0.0f;
  }
  for (std::int64_t page = item.begin / kPagePositions; page * kPagePositions < item.end; ++page) {
    const std::int64_t base = page * kPagePositions;
    const std::int64_t left = item.end - base;
    const Range visited = {item.begin > base ? item.begin - base : 0,
                           left < kPagePositions ? left : kPagePositions};
    const std::byte* head = item.pages[page] + item.offset;
    // For as_floats: f32 as it is stored, the others made into floats.
    RealLoader<V, float> key_loader{key_floats, 16, d * kPanelPositions},
        value_loader{value_floats, padded, 16};
    if (l.keys == Format::kF32) {
      key_loader.base = reinterpret_cast<const float*>(head);
    } else if (as_floats) {
      const std::int64_t from = visited.begin / 16, panels = (visited.end + 15) / 16 - from;
      with_keys<V>(l, head, [&](const auto& keys) {
        expand<V>(d, keys.panels_from(from), panels, key_floats + from * d * 16, 16, d * 16);
      });
    }
    if (l.values == Format::kF32) {
      value_loader.base = reinterpret_cast<const float*>(head + l.values_offset);
    } else if (as_floats) {
      with_values<V>(l, head, [&](const auto& values) {
        expand<V>(visited.end - visited.begin, values.rows_from(visited.begin), padded / 16,
                  value_floats + visited.begin * padded, padded, 16);
      });
    }
    for (std::int64_t begin = 0; begin < rows; begin += kMaxRows) {
      const int count = static_cast<int>(rows - begin < kMaxRows ? rows - begin : kMaxRows);
      const std::int64_t low = item.first + begin / item.group - base;
      const std::int64_t high = item.first + (begin + count - 1) / item.group - base;
      const Range tile = {seen(visited, low, item.window).begin, seen(visited, high, item.window).end};
      if (tile.begin >= tile.end) continue;
      const Range columns = {tile.begin / 16 * 16, (tile.end + 15) / 16 * 16};
      const std::int64_t panel = columns.begin / 16, panels = (columns.end - columns.begin) / 16;

      const auto score = [&](const auto& keys, auto ahead) {
        multiply<V>(count, queries + begin * d, d, d, keys.panels_from(panel), ahead, panels, nullptr,
                    scores + columns.begin, kPagePositions);
      };
      if (as_floats) {
        score(key_loader, NoReadAhead{});
      } else {
        const std::byte* values =
            head + l.values_offset + static_cast<std::size_t>(tile.begin) * l.value_row_bytes;
        const auto bytes = static_cast<std::size_t>(tile.end - tile.begin) * l.value_row_bytes;
        with_keys<V>(l, head, [&](const auto& keys) {
          score(keys, ReadAhead<V::kMaxPanels>::template over<V>(values, bytes, d, panels));
        });
      }
      Range ranges[kMaxRows];
      for (int r = 0; r < count; ++r) {
        const Range row = seen(visited, item.first + (begin + r) / item.group - base, item.window);
        ranges[r] = {row.begin - columns.begin, row.end - columns.begin};
      }
      softmax_tile<V>(count, panels, scores + columns.begin, ranges, item.softcap,
                      {running.max + begin, running.sums + begin * 16}, factors);
      const auto add = [&](const auto& values, auto ahead) {
        multiply<V>(count, scores + tile.begin, kPagePositions, tile.end - tile.begin,
                    values.rows_from(tile.begin), ahead, padded / 16, factors, acc + begin * padded, padded);
      };
      if (as_floats) {
        add(value_loader, NoReadAhead{});
      } else {
        const bool last = base + kPagePositions >= item.end;
        const std::byte* keys = last ? head : item.pages[page + 1] + item.offset;
        const auto ahead = ReadAhead<V::kMaxPanels>::template over<V>(keys, last ? 0 : l.values_offset,
                                                                      tile.end - tile.begin, padded / 16);
        with_values<V>(l, head, [&](const auto& values) { add(values, ahead); });
      }
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    max[r] = max[r] == kNothing ? -std::numeric_limits<float>::infinity() : max[r] * kLn2 + 0.0f;
    sum[r] = add_lanes(running.sums + r * 16);
  }
  // Positions that only other rows of a tile see have added zeros, which changed the sign of zeros at most.
  for (std::int64_t i = 0; i < rows * padded; ++i) acc[i] += 0.0f;
}

}  // namespace narrow::kernels::attention

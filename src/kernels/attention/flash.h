// AttentionKernels::attend over the vector V of an instruction set: page by page, every tile of kMaxRows
// query rows meets the page's keys, updates its running maximum and sum, and adds the page's values. A page
// is made into floats once for all tiles; when there is one tile only (decode), its products read the stored
// form.
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

template <class V>
static inline typename V::F cap_scores(typename V::F x, float cap) {
  // cap * tanh(x / cap), tanh z = 1 - 2 / (e^2z + 1)
  const typename V::F one = V::set1(1.0f);
  const typename V::F e = V::exp(V::mul(x, V::set1(2.0f / cap)));
  return V::mul(V::set1(cap), V::sub(one, V::div(V::set1(2.0f), V::add(e, one))));
}

// Scores in columns [columns.begin, columns.end) (multiples of 16) of one row to e^(s - max), zero where the
// row does not see; returns what the earlier sums of the row must be multiplied by.
template <class V>
static inline float probabilities(float* s, Range columns, Range row, float softcap, float& max, float& sum) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const bool masked = row.begin > columns.begin || row.end < columns.end;
  typename V::F top = V::set1(max);
  for (std::int64_t c = columns.begin; c < columns.end; c += V::kWidth) {
    typename V::F x = V::load(s + c);
    if (softcap != 0.0f) x = cap_scores<V>(x, softcap);
    if (masked) x = V::keep(x, row.begin - c, row.end - c);
    if (masked || softcap != 0.0f) V::store(s + c, x);
    top = V::max(top, x);
  }
  const float new_max = V::reduce_max(top);
  const typename V::F shift = V::set1(new_max == kNone ? 0.0f : new_max);
  typename V::F total = V::zero();
  for (std::int64_t c = columns.begin; c < columns.end; c += V::kWidth) {
    const typename V::F p = V::exp(V::sub(V::load(s + c), shift));
    V::store(s + c, p);
    total = V::add(total, p);
  }
  const float factor = max == new_max ? 1.0f : V::first(V::exp(V::sub(V::set1(max), shift)));
  sum = sum * factor + V::reduce_add(total);
  max = new_max;
  return factor;
}

// Queries times the scale, rotated as the keys are: out [rows, head_dim].
template <class V>
static void pack_queries(const HeadLayout& l, const AttentionItem& item, float* out) {
  for (std::int64_t t = 0; t < item.tokens; ++t) {
    const float* from = item.q + t * item.q_stride;
    float* to = out + t * item.group * l.head_dim;
    for (std::int64_t i = 0; i < item.group * l.head_dim; ++i) to[i] = item.scale * from[i];
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

  pack_queries<V>(l, item, queries);
  for (std::int64_t i = 0; i < rows * padded; ++i) acc[i] = 0.0f;
  for (std::int64_t r = 0; r < rows; ++r) {
    max[r] = -std::numeric_limits<float>::infinity();
    sum[r] = 0.0f;
  }
  const bool as_floats = rows > kMaxRows;
  const RealLoader<V, float> expanded_keys{key_floats, 16, d * kPanelPositions};
  const RealLoader<V, float> expanded_values{value_floats, padded, 16};

  for (std::int64_t page = item.begin / kPagePositions; page * kPagePositions < item.end; ++page) {
    const std::int64_t base = page * kPagePositions;
    const std::int64_t left = item.end - base;
    const Range visited = {item.begin > base ? item.begin - base : 0,
                           left < kPagePositions ? left : kPagePositions};
    const std::byte* head = item.pages[page] + item.offset;
    const bool expand_keys = as_floats && l.keys != Format::kF32;
    const bool expand_values = as_floats && l.values != Format::kF32;
    if (expand_keys) {
      const std::int64_t from = visited.begin / 16, panels = (visited.end + 15) / 16 - from;
      with_keys<V>(l, head, [&](const auto& keys) {
        expand<V>(d, keys.panels_from(from), panels, key_floats + from * d * 16, 16, d * 16);
      });
    }
    if (expand_values) {
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

      const auto score = [&](const auto& keys) {
        multiply<V>(count, queries + begin * d, d, d, keys.panels_from(panel), panels, nullptr,
                    scores + columns.begin, kPagePositions);
      };
      if (expand_keys) {
        score(expanded_keys);
      } else {
        with_keys<V>(l, head, score);
      }
      for (int r = 0; r < count; ++r) {
        const std::int64_t position = item.first + (begin + r) / item.group - base;
        factors[r] =
            probabilities<V>(scores + r * kPagePositions, columns, seen(visited, position, item.window),
                             item.softcap, max[begin + r], sum[begin + r]);
      }
      const auto add = [&](const auto& values) {
        multiply<V>(count, scores + tile.begin, kPagePositions, tile.end - tile.begin,
                    values.rows_from(tile.begin), padded / 16, factors, acc + begin * padded, padded);
      };
      if (expand_values) {
        add(expanded_values);
      } else {
        with_values<V>(l, head, add);
      }
    }
  }
}

}  // namespace narrow::kernels::attention

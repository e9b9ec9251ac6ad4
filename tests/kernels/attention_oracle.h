// Plain attention in double over a cache that is read by the letter of kernels/attention.h.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "base/scalar.h"
#include "kernels/attention.h"
#include "testing/testing.h"

namespace narrow::testing {

inline std::vector<float> normal_vector(std::int64_t n, std::uint64_t seed, float scale = 1.0f) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = scale * rng.normal();
  return v;
}

template <class T>
T read_as(const std::byte* p) {
  T x;
  std::memcpy(&x, p, sizeof(T));
  return x;
}

// Element i of the key in a slot, as stored: rotated where the layout says so.
inline double stored_key(const kernels::HeadLayout& l, const std::byte* head, std::int64_t slot,
                         std::int64_t i) {
  const std::byte* panel = head + static_cast<std::size_t>(slot / 16) * l.panel_bytes;
  const std::int64_t lane = slot % 16;
  if (l.keys == Format::kF32) return read_as<float>(panel + 4 * (i * 16 + lane));
  if (l.keys == Format::kF16) return to_f32(read_as<f16>(panel + 2 * (i * 16 + lane)));
  const double scale = to_f32(read_as<f16>(panel + 2 * (i / 32 * 16 + lane)));
  const std::byte* codes = panel + 2 * (l.head_dim / 32 * 16);
  if (l.keys == Format::kQ8_0) return scale * read_as<std::int8_t>(codes + i * 16 + lane);
  const int both = std::to_integer<int>(codes[i / 2 * 16 + lane]);
  return scale * ((i % 2 == 0 ? both & 15 : both >> 4) - 8);
}

inline std::vector<float> stored_value(const kernels::HeadLayout& l, const std::byte* head,
                                       std::int64_t slot) {
  std::vector<float> row(static_cast<std::size_t>(l.head_dim));
  const std::byte* from = head + l.values_offset + static_cast<std::size_t>(slot) * l.value_row_bytes;
  EXPECT_TRUE(decode_row(l.values, from, row.data(), l.head_dim).ok());
  return row;
}

// The Walsh-Hadamard transform from its definition.
inline std::vector<double> rotated(const kernels::HeadLayout& l, const float* x) {
  std::vector<double> y(x, x + l.head_dim);
  if (l.rotation < 2) return y;
  for (std::int64_t i = 0; i < l.head_dim; ++i) {
    const std::int64_t block = i / l.rotation * l.rotation;
    double sum = 0;
    for (std::int64_t j = 0; j < l.rotation; ++j) {
      const bool odd = std::popcount(static_cast<std::uint64_t>((i - block) & j)) % 2 == 1;
      sum += odd ? -x[block + j] : x[block + j];
    }
    y[static_cast<std::size_t>(i)] = sum / std::sqrt(static_cast<double>(l.rotation));
  }
  return y;
}

// Keys and values of one head of one sequence as doubles, positions 0 .. count - 1.
struct DoubleCache {
  std::vector<double> keys, values;
  std::int64_t dim;

  DoubleCache(const kernels::HeadLayout& l, const std::byte* const* pages, std::size_t offset,
              std::int64_t count)
      : dim(l.head_dim) {
    for (std::int64_t p = 0; p < count; ++p) {
      const std::byte* head = pages[p / 64] + offset;
      for (std::int64_t i = 0; i < dim; ++i) keys.push_back(stored_key(l, head, p % 64, i));
      for (const float v : stored_value(l, head, p % 64)) values.push_back(v);
    }
  }

  // The output for one query at a position.
  std::vector<double> attend(const kernels::HeadLayout& l, const float* q, std::int64_t position,
                             double scale, double softcap, std::int64_t window) const {
    const std::vector<double> query = rotated(l, q);
    const std::int64_t begin = window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
    std::vector<double> scores;
    for (std::int64_t p = begin; p <= position; ++p) {
      double dot = 0;
      for (std::int64_t i = 0; i < dim; ++i) {
        dot += query[static_cast<std::size_t>(i)] * keys[static_cast<std::size_t>(p * dim + i)];
      }
      dot *= scale;
      scores.push_back(softcap > 0 ? softcap * std::tanh(dot / softcap) : dot);
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    std::vector<double> out(static_cast<std::size_t>(dim), 0.0);
    for (std::int64_t p = begin; p <= position; ++p) {
      const double weight = std::exp(scores[static_cast<std::size_t>(p - begin)] - max);
      total += weight;
      for (std::int64_t i = 0; i < dim; ++i) {
        out[static_cast<std::size_t>(i)] += weight * values[static_cast<std::size_t>(p * dim + i)];
      }
    }
    for (double& v : out) v /= total;
    return out;
  }
};

}  // namespace narrow::testing

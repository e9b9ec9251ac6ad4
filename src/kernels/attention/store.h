// One position's key and value into a page (kernels/attention.h).
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/attention.h"
#include "kernels/attention/loaders.h"

namespace narrow::kernels::attention {

// y = H x / sqrt(block) for each run of `block` (a power of two) values: the Walsh-Hadamard transform, which
// is its own inverse and keeps dot products.
template <class V>
static void hadamard(float* x, std::int64_t n, std::int64_t block) {
  const float norm = 1.0f / std::sqrt(static_cast<float>(block));
  for (std::int64_t half = 1; half < block; half *= 2) {
    for (std::int64_t i = 0; i < n; i += 2 * half) {
      if (half >= V::kWidth) {
        for (std::int64_t j = i; j < i + half; j += V::kWidth) {
          const typename V::F a = V::load(x + j), b = V::load(x + j + half);
          V::store(x + j, V::add(a, b));
          V::store(x + j + half, V::sub(a, b));
        }
      } else {
        for (std::int64_t j = i; j < i + half; ++j) {
          const float a = x[j], b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
      }
    }
  }
  for (std::int64_t i = 0; i < n; ++i) x[i] *= norm;
}

// 32 values to codes as whole floats (4 bits: 0 .. 15); writes the fp16 scale.
template <class V, bool kFourBits>
static void quantize_block(const float* x, std::uint16_t* scale, float* codes) {
  typename V::F high = V::load(x), low = high;
  for (int i = V::kWidth; i < 32; i += V::kWidth) {
    high = V::max(high, V::load(x + i));
    low = V::min(low, V::load(x + i));
  }
  const float most = V::reduce_max(high), least = -V::reduce_max(V::sub(V::zero(), low));
  const float extreme = most > -least ? most : least;
  const float step = kFourBits ? extreme / -8.0f : (extreme < 0.0f ? -extreme : extreme) / 127.0f;
  alignas(64) float wide[16] = {step};
  alignas(64) std::uint16_t halves[16];
  for (int i = 0; i < 16; i += V::kWidth) V::store_f16(halves + i, V::load(wide + i));
  *scale = halves[0];
  V::store(wide, V::load_f16(halves));
  const float inverse = 1.0f / wide[0];
  const bool usable = inverse - inverse == 0.0f;  // finite
  const typename V::F factor = V::set1(usable ? inverse : 0.0f), offset = V::set1(kFourBits ? 8.0f : 0.0f);
  const typename V::F lowest = V::set1(kFourBits ? 0.0f : -127.0f),
                      highest = V::set1(kFourBits ? 15.0f : 127.0f);
  for (int i = 0; i < 32; i += V::kWidth) {
    const typename V::F q = V::add(V::round(V::mul(V::load(x + i), factor)), offset);
    V::store(codes + i, V::min(V::max(q, lowest), highest));
  }
}

static inline std::uint8_t code_byte(float code) {
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(code));
}

template <class V>
static void store_key(const HeadLayout& l, const float* x, std::int64_t slot, std::byte* head) {
  std::byte* panel = head + static_cast<std::size_t>(slot / kPanelPositions) * l.panel_bytes;
  const std::int64_t lane = slot % kPanelPositions;
  if (l.keys == Format::kF32) {
    auto* to = reinterpret_cast<float*>(panel) + lane;
    for (std::int64_t i = 0; i < l.head_dim; ++i) to[i * 16] = x[i];
    return;
  }
  auto* halves = reinterpret_cast<std::uint16_t*>(panel) + lane;
  if (l.keys == Format::kF16) {
    for (std::int64_t i = 0; i < l.head_dim; i += 16) {
      alignas(64) std::uint16_t h[16];
      for (int j = 0; j < 16; j += V::kWidth) V::store_f16(h + j, V::load(x + i + j));
      for (std::int64_t j = 0; j < 16 && i + j < l.head_dim; ++j) halves[(i + j) * 16] = h[j];
    }
    return;
  }
  auto* codes = reinterpret_cast<std::uint8_t*>(panel + l.head_dim) + lane;
  for (std::int64_t i = 0; i < l.head_dim; i += 32) {
    alignas(64) float q[32];
    if (l.keys == Format::kQ8_0) {
      quantize_block<V, false>(x + i, halves + i / 32 * 16, q);
      for (std::int64_t j = 0; j < 32; ++j) codes[(i + j) * 16] = code_byte(q[j]);
    } else {
      quantize_block<V, true>(x + i, halves + i / 32 * 16, q);
      for (std::int64_t j = 0; j < 16; ++j) {
        const int both = code_byte(q[2 * j]) | (code_byte(q[2 * j + 1]) << 4);
        codes[(i / 2 + j) * 16] = static_cast<std::uint8_t>(both);
      }
    }
  }
}

template <class V>
static void store_value(const HeadLayout& l, const float* x, std::int64_t slot, std::byte* head) {
  std::byte* row = head + l.values_offset + static_cast<std::size_t>(slot) * l.value_row_bytes;
  if (l.values == Format::kF32) {
    std::memcpy(row, x, static_cast<std::size_t>(l.padded_dim) * sizeof(float));
    return;
  }
  if (l.values == Format::kF16) {
    auto* to = reinterpret_cast<std::uint16_t*>(row);
    for (std::int64_t i = 0; i < l.padded_dim; i += V::kWidth) V::store_f16(to + i, V::load(x + i));
    return;
  }
  for (std::int64_t i = 0; i < l.head_dim; i += 32) {
    alignas(64) float q[32];
    std::uint16_t scale = 0;
    std::uint8_t codes[32];
    const bool eight = l.values == Format::kQ8_0;
    if (eight) {
      quantize_block<V, false>(x + i, &scale, q);
      for (int j = 0; j < 32; ++j) codes[j] = code_byte(q[j]);
    } else {
      quantize_block<V, true>(x + i, &scale, q);
      for (int j = 0; j < 16; ++j) {
        codes[j] = static_cast<std::uint8_t>(code_byte(q[j]) | (code_byte(q[j + 16]) << 4));
      }
    }
    std::memcpy(row, &scale, sizeof(scale));
    std::memcpy(row + 2, codes, eight ? 32 : 16);
    row += eight ? 34 : 18;
  }
}

template <class V>
static void store(const HeadLayout& l, const float* key, const float* value, std::int64_t slot,
                  std::byte* head) {
  // A copy padded with zeros, so that vectors never run over the end.
  alignas(64) float row[kMaxHeadDim];
  for (std::int64_t i = l.head_dim; i < l.padded_dim; ++i) row[i] = 0.0f;
  std::memcpy(row, key, static_cast<std::size_t>(l.head_dim) * sizeof(float));
  if (l.rotation > 1) hadamard<V>(row, l.head_dim, l.rotation);
  store_key<V>(l, row, slot, head);
  std::memcpy(row, value, static_cast<std::size_t>(l.head_dim) * sizeof(float));
  store_value<V>(l, row, slot, head);
}

}  // namespace narrow::kernels::attention

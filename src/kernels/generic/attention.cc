// Scalar attention: the stored layout and the order of operations of kernels/attention.h, written out. Every
// other instruction set has the same bits.
#include "kernels/generic/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/scalar.h"
#include "formats/q4_0.h"
#include "formats/q8_0.h"

namespace narrow::kernels::generic {
namespace {

constexpr std::int64_t kPage = kPagePositions, kLanes = kPanelPositions;
constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
constexpr float kNothing = -1e30f;  // maximum of a row that has seen nothing

void rotate(const HeadLayout& l, float* x) {
  if (l.rotation <= 1) return;
  for (std::int64_t half = 1; half < l.rotation; half *= 2) {
    for (std::int64_t i = 0; i < l.head_dim; i += 2 * half) {
      for (std::int64_t j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  const float norm = 1.0f / std::sqrt(static_cast<float>(l.rotation));
  for (std::int64_t i = 0; i < l.head_dim; ++i) x[i] *= norm;
}

// 32 values to codes (4 bits: 0 .. 15), which are returned with their scale.
struct Block {
  std::uint16_t scale;
  int codes[32];
};
Block quantize(Format format, const float* x) {
  float most = x[0], least = 0.0f - x[0];  // least: negated, and a zero is +0
  for (int i = 1; i < 32; ++i) {
    most = std::max(most, x[i]);
    least = std::max(least, 0.0f - x[i]);
  }
  const float extreme = most > least ? most : -least;
  const bool four = format == Format::kQ4_0;
  const f16 scale = to_f16(four ? extreme / -8.0f : (extreme < 0.0f ? -extreme : extreme) / 127.0f);
  const float inverse = 1.0f / to_f32(scale), factor = std::isfinite(inverse) ? inverse : 0.0f;
  Block b{scale.bits, {}};
  for (int i = 0; i < 32; ++i) {
    const float q = std::nearbyint(x[i] * factor) + (four ? 8.0f : 0.0f);
    b.codes[i] = static_cast<int>(std::clamp(q, four ? 0.0f : -127.0f, four ? 15.0f : 127.0f));
  }
  return b;
}

void store_key(const HeadLayout& l, const float* x, std::int64_t slot, std::byte* head) {
  std::byte* panel = head + static_cast<std::size_t>(slot / kLanes) * l.panel_bytes;
  auto* floats = reinterpret_cast<float*>(panel) + slot % kLanes;
  auto* halves = reinterpret_cast<std::uint16_t*>(panel) + slot % kLanes;
  auto* codes = reinterpret_cast<std::uint8_t*>(panel + l.head_dim) + slot % kLanes;
  if (l.keys == Format::kF32 || l.keys == Format::kF16) {
    for (std::int64_t i = 0; i < l.head_dim; ++i) {
      if (l.keys == Format::kF32) floats[i * kLanes] = x[i];
      if (l.keys == Format::kF16) halves[i * kLanes] = to_f16(x[i]).bits;
    }
    return;
  }
  for (std::int64_t i = 0; i < l.head_dim; i += 32) {
    const Block b = quantize(l.keys, x + i);
    halves[i / 32 * kLanes] = b.scale;
    for (int j = 0; j < 32; ++j) {
      if (l.keys == Format::kQ8_0) codes[(i + j) * kLanes] = static_cast<std::uint8_t>(b.codes[j]);
      if (l.keys == Format::kQ4_0 && j % 2 == 1) {
        codes[(i + j) / 2 * kLanes] = static_cast<std::uint8_t>(b.codes[j - 1] | (b.codes[j] << 4));
      }
    }
  }
}

void store_value(const HeadLayout& l, const float* x, std::int64_t slot, std::byte* head) {
  std::byte* row = head + l.values_offset + static_cast<std::size_t>(slot) * l.value_row_bytes;
  if (l.values == Format::kF32 || l.values == Format::kF16) {
    for (std::int64_t i = 0; i < l.padded_dim; ++i) {
      const float value = i < l.head_dim ? x[i] : 0.0f;
      if (l.values == Format::kF32) reinterpret_cast<float*>(row)[i] = value;
      if (l.values == Format::kF16) reinterpret_cast<std::uint16_t*>(row)[i] = to_f16(value).bits;
    }
    return;
  }
  const bool four = l.values == Format::kQ4_0;
  for (std::int64_t i = 0; i < l.head_dim; i += 32) {
    const Block b = quantize(l.values, x + i);
    std::memcpy(row, &b.scale, sizeof(b.scale));
    row += sizeof(b.scale);
    for (int j = 0; j < (four ? 16 : 32); ++j) {
      *row++ = static_cast<std::byte>(four ? b.codes[j] | (b.codes[j + 16] << 4) : b.codes[j]);
    }
  }
}

void store(const HeadLayout& l, const float* key, const float* value, std::int64_t slot, std::byte* head) {
  float rotated[kMaxHeadDim];
  std::copy(key, key + l.head_dim, rotated);
  rotate(l, rotated);
  store_key(l, rotated, slot, head);
  store_value(l, value, slot, head);
}

// Keys of slots begin .. end - 1: out [head_dim, kPage].
void read_keys(const HeadLayout& l, const std::byte* head, std::int64_t begin, std::int64_t end, float* out) {
  for (std::int64_t slot = begin; slot < end; ++slot) {
    const std::byte* panel = head + static_cast<std::size_t>(slot / kLanes) * l.panel_bytes;
    const auto* floats = reinterpret_cast<const float*>(panel) + slot % kLanes;
    const auto* halves = reinterpret_cast<const std::uint16_t*>(panel) + slot % kLanes;
    const auto* codes = reinterpret_cast<const std::uint8_t*>(panel + l.head_dim) + slot % kLanes;
    for (std::int64_t i = 0; i < l.head_dim; ++i) {
      float x = 0.0f;
      if (l.keys == Format::kF32) x = floats[i * kLanes];
      if (l.keys == Format::kF16) x = to_f32(f16{halves[i * kLanes]});
      if (l.keys == Format::kQ8_0) x = static_cast<std::int8_t>(codes[i * kLanes]);
      if (l.keys == Format::kQ4_0) {
        x = static_cast<float>(((codes[i / 2 * kLanes] >> (i % 2 == 0 ? 0 : 4)) & 15) - 8);
      }
      if (l.keys == Format::kQ8_0 || l.keys == Format::kQ4_0) x *= to_f32(f16{halves[i / 32 * kLanes]});
      out[i * kPage + slot] = x;
    }
  }
}

// Values of slots begin .. end - 1: out [kPage, padded_dim].
void read_values(const HeadLayout& l, const std::byte* head, std::int64_t begin, std::int64_t end,
                 float* out) {
  for (std::int64_t slot = begin; slot < end; ++slot) {
    const std::byte* row = head + l.values_offset + static_cast<std::size_t>(slot) * l.value_row_bytes;
    float* to = out + slot * l.padded_dim;
    if (l.values == Format::kQ8_0) {
      formats::decode_q8_0(row, to, l.head_dim);
    } else if (l.values == Format::kQ4_0) {
      formats::decode_q4_0(row, to, l.head_dim);
    } else if (l.values == Format::kF32) {
      std::memcpy(to, row, l.value_row_bytes);
    } else {
      for (std::int64_t i = 0; i < l.padded_dim; ++i) {
        to[i] = to_f32(f16{reinterpret_cast<const std::uint16_t*>(row)[i]});
      }
    }
  }
}

float power_of_two(float x) {
  const float n = std::nearbyint(std::max(-126.0f, x)), r = x - n;
  float p = 1.535336188319500e-4f;
  p = std::fma(p, r, 1.339887440266574e-3f);
  p = std::fma(p, r, 9.618437357674640e-3f);
  p = std::fma(p, r, 5.550332471162809e-2f);
  p = std::fma(p, r, 2.402264791363012e-1f);
  p = std::fma(p, r, 6.931472028550421e-1f);
  p = std::fma(p, r, 1.0f);
  const float scaled = p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);  // exact
  return x < -126.0f ? 0.0f : scaled;
}

// softcap * tanh(x / softcap) in units of ln 2.
float cap(float x, float softcap) {
  const float e = power_of_two(std::min(x * (2.0f * kLog2E / softcap), 60.0f));
  return softcap * kLog2E * (1.0f - 2.0f / (e + 1.0f));
}

// One block of one row: the positions begin .. end - 1 of a page. lanes [kLanes], acc [padded_dim].
void add_block(const HeadLayout& l, const float* query, const float* keys, const float* values, float softcap,
               std::int64_t begin, std::int64_t end, float* max, float* lanes, float* acc) {
  float x[kPage] = {};
  for (std::int64_t i = 0; i < l.head_dim; ++i) {
    for (std::int64_t p = begin; p < end; ++p) x[p] = std::fma(query[i], keys[i * kPage + p], x[p]);
  }
  float top = *max;
  for (std::int64_t p = begin; p < end; ++p) {
    if (softcap != 0.0f) x[p] = cap(x[p], softcap);
    top = std::max(top, x[p]);
  }
  const float factor = power_of_two(*max - top);
  *max = top;
  float totals[kLanes] = {};
  for (std::int64_t p = begin; p < end; ++p) {
    x[p] = power_of_two(x[p] - top);
    totals[p % kLanes] += x[p];
  }
  for (std::int64_t i = 0; i < kLanes; ++i) lanes[i] = std::fma(lanes[i], factor, totals[i]);
  for (std::int64_t j = 0; j < l.padded_dim; ++j) acc[j] *= factor;
  for (std::int64_t p = begin; p < end; ++p) {
    for (std::int64_t j = 0; j < l.padded_dim; ++j) {
      acc[j] = std::fma(x[p], values[p * l.padded_dim + j], acc[j]);
    }
  }
}

void attend(const HeadLayout& l, const AttentionItem& item, float* acc, float* max, float* sum,
            float* scratch) {
  const std::int64_t rows = item.rows(), d = l.head_dim;
  float* keys = scratch;
  float* values = keys + kPage * l.padded_dim;
  float* queries = values + kPage * l.padded_dim;  // [rows, head_dim]
  float* lanes = queries + rows * d;               // [rows, kLanes]

  const float scale = item.softcap == 0.0f ? item.scale * kLog2E : item.scale;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* q = item.q + r / item.group * item.q_stride + r % item.group * d;
    for (std::int64_t i = 0; i < d; ++i) queries[r * d + i] = scale * q[i];
    rotate(l, queries + r * d);
  }
  std::fill(acc, acc + rows * l.padded_dim, 0.0f);
  std::fill(lanes, lanes + rows * kLanes, 0.0f);
  std::fill(max, max + rows, kNothing);

  for (std::int64_t page = item.begin / kPage; page * kPage < item.end; ++page) {
    const std::int64_t base = page * kPage, first = std::max(item.begin - base, std::int64_t{0}),
                       last = std::min(item.end - base, kPage);
    read_keys(l, item.pages[page] + item.offset, first, last, keys);
    read_values(l, item.pages[page] + item.offset, first, last, values);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t position = item.first + r / item.group - base;
      const std::int64_t begin = item.window > 0 ? std::max(first, position - item.window + 1) : first;
      const std::int64_t end = std::min(last, position + 1);
      if (begin >= end) continue;
      add_block(l, queries + r * d, keys, values, item.softcap, begin, end, max + r, lanes + r * kLanes,
                acc + r * l.padded_dim);
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    float* lane = lanes + r * kLanes;
    for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    sum[r] = lane[0];
    max[r] = max[r] == kNothing ? -std::numeric_limits<float>::infinity() : max[r] * kLn2 + 0.0f;
  }
  for (std::int64_t i = 0; i < rows * l.padded_dim; ++i) acc[i] += 0.0f;
}

}  // namespace

constinit const AttentionKernels kAttention = {store, attend};

}  // namespace narrow::kernels::generic

#include "formats/grid.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "formats/block.h"
#include "formats/codebook_fit.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/tq1_0.h"
#include "formats/tq2_0.h"

namespace narrow::formats {
namespace {

template <int kFirst, int kCount>
constexpr std::array<float, kCount> whole_levels() {
  std::array<float, kCount> out{};
  for (int i = 0; i < kCount; ++i) out[static_cast<std::size_t>(i)] = static_cast<float>(kFirst + i);
  return out;
}

template <int kFirst, int kCount>
constexpr auto kWhole = whole_levels<kFirst, kCount>();

constexpr auto kNonLinear = [] {
  std::array<float, 16> out{};
  for (std::size_t i = 0; i < 16; ++i) out[i] = static_cast<float>(kNonLinearLevels[i]);
  return out;
}();

// E2M1's, doubled.
constexpr std::array<float, 15> kE2M1 = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};

template <class Block>
constexpr int kDOffset = static_cast<int>(offsetof(Block, d));
template <class Block>
constexpr int kMinOffset = static_cast<int>(offsetof(Block, dmin));
template <class Block>
constexpr int kMOffset = static_cast<int>(offsetof(Block, m));

using ReadScales = void (*)(const std::byte* block, float* scale, float* min);
using WriteScales = void (*)(std::byte* block, const float* scale, const float* min);

// Never infinite; NaN stays.
f16 finite_f16(float v) {
  constexpr float kLargest = 65504.0f;
  return to_f16(v > kLargest ? kLargest : v < -kLargest ? -kLargest : v);
}

template <class Block>
void read_d(const std::byte* block, float* scale, float* min) {
  scale[0] = to_f32(load_block<Block>(block, 0).d);
  min[0] = 0;
}

template <class Block>
void write_d(std::byte* block, const float* scale, const float*) {
  auto b = load_block<Block>(block, 0);
  b.d = finite_f16(scale[0]);
  store_block(block, 0, b);
}

template <class Block>
void read_dm(const std::byte* block, float* scale, float* min) {
  const auto b = load_block<Block>(block, 0);
  scale[0] = to_f32(b.d);
  min[0] = to_f32(b.m);
}

template <class Block>
void write_dm(std::byte* block, const float* scale, const float* min) {
  auto b = load_block<Block>(block, 0);
  b.d = finite_f16(scale[0]);
  b.m = finite_f16(min[0]);
  store_block(block, 0, b);
}

void read_mx(const std::byte* block, float* scale, float* min) {
  scale[0] = read_scale_mxfp4(block);
  min[0] = 0;
}

void write_mx(std::byte* block, const float* scale, const float*) { write_scale_mxfp4(block, scale[0]); }

// A factor and whole multiples of it in [lo, hi].
struct Multiples {
  f16 factor;
  int of[16] = {};
  double error = 0;  // squared, of what they stand for
};

Multiples with_factor(f16 factor, const float* wanted, int n, int lo, int hi) {
  Multiples m{factor};
  const float d = to_f32(factor);
  for (int g = 0; g < n; ++g) {
    const float ratio = d != 0 ? wanted[g] / d : 0.0f;
    m.of[g] =
        static_cast<int>(std::nearbyint(std::clamp(ratio, static_cast<float>(lo), static_cast<float>(hi))));
    const double off = static_cast<double>(wanted[g]) - static_cast<double>(d) * m.of[g];
    m.error += off * off;
  }
  return m;
}

void choose_multiples(const float* wanted, int n, int lo, int hi, f16* factor, int* multiples) {
  float peak = 0;
  bool finite = true;
  for (int g = 0; g < n; ++g) {
    if (std::fabs(wanted[g]) > std::fabs(peak)) peak = wanted[g];
    finite = finite && std::isfinite(wanted[g]);
  }
  if (!finite) {
    *factor = to_f16(std::numeric_limits<float>::quiet_NaN());
    std::fill(multiples, multiples + n, 0);
    return;
  }
  Multiples best = with_factor(*factor, wanted, n, lo, hi);
  double up = 0, down = 0;
  for (int g = 0; g < n; ++g) {
    up += static_cast<double>(wanted[g]) * best.of[g];
    down += static_cast<double>(best.of[g]) * best.of[g];
  }
  const float longest = static_cast<float>(-lo > hi ? lo : hi);
  for (const float other : {down > 0 ? static_cast<float>(up / down) : 0.0f, peak / longest}) {
    if (best.error == 0) break;
    const Multiples m = with_factor(finite_f16(other), wanted, n, lo, hi);
    if (m.error < best.error || !std::isfinite(best.error)) best = m;
  }
  *factor = best.factor;
  std::copy(best.of, best.of + n, multiples);
}

template <SubScales (*kRead)(const std::byte*), int kGroups>
void read_super(const std::byte* block, float* scale, float* min) {
  const SubScales s = kRead(block);
  const float d = to_f32(s.d), dmin = to_f32(s.dmin);
  for (int g = 0; g < kGroups; ++g) {
    scale[g] = d * static_cast<float>(s.sc[g]);
    min[g] = -(dmin * static_cast<float>(s.mn[g]));
  }
}

// kMinHigh: the largest multiple of a min; 0 for formats without.
template <SubScales (*kRead)(const std::byte*), void (*kWrite)(std::byte*, const SubScales&), int kGroups,
          int kLow, int kHigh, int kMinHigh>
void write_super(std::byte* block, const float* scale, const float* min) {
  SubScales s = kRead(block);
  choose_multiples(scale, kGroups, kLow, kHigh, &s.d, s.sc);
  if constexpr (kMinHigh > 0) {
    float down[kGroups];
    for (int g = 0; g < kGroups; ++g) down[g] = -min[g];
    choose_multiples(down, kGroups, 0, kMinHigh, &s.dmin, s.mn);
  }
  kWrite(block, s);
}

struct Row {
  Format format;
  GridCodec codec;
  ReadScales read;
  WriteScales write;
};

constexpr Row kRows[] = {
    {Format::kQ4_0,
     {32, kWhole<-8, 16>, true, write_q4_0, kDOffset<BlockQ4_0>, -1},
     read_d<BlockQ4_0>,
     write_d<BlockQ4_0>},
    {Format::kQ4_1,
     {32, kWhole<0, 16>, true, write_q4_1, kDOffset<BlockQ4_1>, kMOffset<BlockQ4_1>},
     read_dm<BlockQ4_1>,
     write_dm<BlockQ4_1>},
    {Format::kQ5_0,
     {32, kWhole<-16, 32>, true, write_q5_0, kDOffset<BlockQ5_0>, -1},
     read_d<BlockQ5_0>,
     write_d<BlockQ5_0>},
    {Format::kQ5_1,
     {32, kWhole<0, 32>, true, write_q5_1, kDOffset<BlockQ5_1>, kMOffset<BlockQ5_1>},
     read_dm<BlockQ5_1>,
     write_dm<BlockQ5_1>},
    {Format::kQ8_0,
     {32, kWhole<-127, 255>, true, write_q8_0, kDOffset<BlockQ8_0>, -1},
     read_d<BlockQ8_0>,
     write_d<BlockQ8_0>},
    {Format::kQ2_K,
     {16, kWhole<0, 4>, true, write_q2_k, kDOffset<BlockQ2_K>, kMinOffset<BlockQ2_K>},
     read_super<read_scales_q2_k, 16>,
     write_super<read_scales_q2_k, write_scales_q2_k, 16, 0, 15, 15>},
    {Format::kQ3_K,
     {16, kWhole<-4, 8>, true, write_q3_k, kDOffset<BlockQ3_K>, -1},
     read_super<read_scales_q3_k, 16>,
     write_super<read_scales_q3_k, write_scales_q3_k, 16, -32, 31, 0>},
    {Format::kQ4_K,
     {32, kWhole<0, 16>, true, write_q4_k, kDOffset<BlockQ4_K>, kMinOffset<BlockQ4_K>},
     read_super<read_scales_q4_k, 8>,
     write_super<read_scales_q4_k, write_scales_q4_k, 8, 0, 63, 63>},
    {Format::kQ5_K,
     {32, kWhole<0, 32>, true, write_q5_k, kDOffset<BlockQ5_K>, kMinOffset<BlockQ5_K>},
     read_super<read_scales_q5_k, 8>,
     write_super<read_scales_q5_k, write_scales_q5_k, 8, 0, 63, 63>},
    {Format::kQ6_K,
     {16, kWhole<-32, 64>, true, write_q6_k, kDOffset<BlockQ6_K>, -1},
     read_super<read_scales_q6_k, 16>,
     write_super<read_scales_q6_k, write_scales_q6_k, 16, -128, 127, 0>},
    {Format::kIQ4_NL,
     {32, kNonLinear, false, write_iq4_nl, kDOffset<BlockIQ4_NL>, -1},
     read_d<BlockIQ4_NL>,
     write_d<BlockIQ4_NL>},
    {Format::kIQ4_XS,
     {32, kNonLinear, false, write_iq4_xs, kDOffset<BlockIQ4_XS>, -1},
     read_super<read_scales_iq4_xs, 8>,
     write_super<read_scales_iq4_xs, write_scales_iq4_xs, 8, -32, 31, 0>},
    {Format::kMXFP4, {32, kE2M1, false, write_mxfp4, -1, -1}, read_mx, write_mx},
    {Format::kTQ1_0,
     {256, kWhole<-1, 3>, true, write_tq1_0, kDOffset<BlockTQ1_0>, -1},
     read_d<BlockTQ1_0>,
     write_d<BlockTQ1_0>},
    {Format::kTQ2_0,
     {256, kWhole<-1, 3>, true, write_tq2_0, kDOffset<BlockTQ2_0>, -1},
     read_d<BlockTQ2_0>,
     write_d<BlockTQ2_0>},
};

const Row* row_of(Format f) {
  for (const Row& r : kRows) {
    if (r.format == f) return &r;
  }
  return nullptr;
}

}  // namespace

const GridCodec* grid_codec(Format f) {
  const Row* row = row_of(f);
  return row != nullptr ? &row->codec : nullptr;
}

void read_grid(Format f, const std::byte* block, float* scale, float* min) {
  row_of(f)->read(block, scale, min);
}

void write_grid(Format f, std::byte* block, const float* scale, const float* min) {
  row_of(f)->write(block, scale, min);
}

}  // namespace narrow::formats

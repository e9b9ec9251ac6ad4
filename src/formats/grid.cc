#include "formats/grid.h"

#include <array>
#include <cstring>

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

struct Row {
  Format format;
  GridCodec codec;
};

template <class Block>
constexpr int kDOffset = static_cast<int>(offsetof(Block, d));
template <class Block>
constexpr int kMinOffset = static_cast<int>(offsetof(Block, dmin));
template <class Block>
constexpr int kMOffset = static_cast<int>(offsetof(Block, m));

constexpr Row kRows[] = {
    {Format::kQ4_0, {32, kWhole<-8, 16>, true, write_q4_0, kDOffset<BlockQ4_0>, -1}},
    {Format::kQ4_1, {32, kWhole<0, 16>, true, write_q4_1, kDOffset<BlockQ4_1>, kMOffset<BlockQ4_1>}},
    {Format::kQ5_0, {32, kWhole<-16, 32>, true, write_q5_0, kDOffset<BlockQ5_0>, -1}},
    {Format::kQ5_1, {32, kWhole<0, 32>, true, write_q5_1, kDOffset<BlockQ5_1>, kMOffset<BlockQ5_1>}},
    {Format::kQ8_0, {32, kWhole<-127, 255>, true, write_q8_0, kDOffset<BlockQ8_0>, -1}},
    {Format::kQ2_K, {16, kWhole<0, 4>, true, write_q2_k, kDOffset<BlockQ2_K>, kMinOffset<BlockQ2_K>}},
    {Format::kQ3_K, {16, kWhole<-4, 8>, true, write_q3_k, kDOffset<BlockQ3_K>, -1}},
    {Format::kQ4_K, {32, kWhole<0, 16>, true, write_q4_k, kDOffset<BlockQ4_K>, kMinOffset<BlockQ4_K>}},
    {Format::kQ5_K, {32, kWhole<0, 32>, true, write_q5_k, kDOffset<BlockQ5_K>, kMinOffset<BlockQ5_K>}},
    {Format::kQ6_K, {16, kWhole<-32, 64>, true, write_q6_k, kDOffset<BlockQ6_K>, -1}},
    {Format::kIQ4_NL, {32, kNonLinear, false, write_iq4_nl, kDOffset<BlockIQ4_NL>, -1}},
    {Format::kIQ4_XS, {32, kNonLinear, false, write_iq4_xs, kDOffset<BlockIQ4_XS>, -1}},
    {Format::kMXFP4, {32, kE2M1, false, write_mxfp4, -1, -1}},
    {Format::kTQ1_0, {256, kWhole<-1, 3>, true, write_tq1_0, kDOffset<BlockTQ1_0>, -1}},
    {Format::kTQ2_0, {256, kWhole<-1, 3>, true, write_tq2_0, kDOffset<BlockTQ2_0>, -1}},
};

constexpr int kLargestBlock = 256, kLargestBytes = 512;

}  // namespace

const GridCodec* grid_codec(Format f) {
  for (const Row& r : kRows) {
    if (r.format == f) return &r.codec;
  }
  return nullptr;
}

// Two blocks with these scales, all codes alike, show the grid.
void read_grid(Format f, const std::byte* block, float* scale, float* min) {
  const FormatInfo& info = format_info(f);
  const GridCodec& codec = *grid_codec(f);
  const auto n = static_cast<std::size_t>(info.block_size);
  const int last = static_cast<int>(codec.levels.size()) - 1;
  std::uint8_t codes[kLargestBlock];
  std::byte copy[kLargestBytes];
  float low[kLargestBlock], high[kLargestBlock];
  std::memcpy(copy, block, static_cast<std::size_t>(info.block_bytes));
  std::memset(codes, 0, n);
  codec.write(copy, codes);
  info.decode(copy, low, info.block_size);
  std::memset(codes, last, n);
  codec.write(copy, codes);
  info.decode(copy, high, info.block_size);
  const double first_level = static_cast<double>(codec.levels.front());
  const double range = static_cast<double>(codec.levels.back()) - first_level;
  for (int g = 0; g < info.block_size / codec.group; ++g) {
    const double lo = static_cast<double>(low[g * codec.group]),
                 hi = static_cast<double>(high[g * codec.group]);
    const double s = (hi - lo) / range;
    scale[g] = static_cast<float>(s);
    min[g] = codec.dmin_offset < 0 ? 0.0f : static_cast<float>(lo - s * first_level);
  }
}

}  // namespace narrow::formats

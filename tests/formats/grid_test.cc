#include "formats/grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace narrow::formats {
namespace {

std::vector<float> random_row(std::int64_t k, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(k));
  for (float& v : x) v = rng.normal();
  return x;
}

TEST(Grid, EveryScalarFormatHasOne) {
  for (const FormatInfo& f : all_formats()) {
    const bool codebook = f.name.starts_with("iq1") || f.name.starts_with("iq2") || f.name.starts_with("iq3");
    EXPECT_EQ(grid_codec(f.format) != nullptr, f.kind == FormatKind::kQuantized && !codebook) << f.name;
  }
}

// Codes written into an encoded block decode to the values of its grid.
TEST(Grid, WrittenCodesDecodeToGridValues) {
  for (const FormatInfo& f : all_formats()) {
    const GridCodec* codec = grid_codec(f.format);
    if (codec == nullptr) continue;
    SCOPED_TRACE(f.name);
    const auto n = static_cast<std::size_t>(f.block_size);
    const std::vector<float> x = random_row(f.block_size, 7);
    std::vector<std::byte> block(static_cast<std::size_t>(f.block_bytes));
    f.encode(x.data(), block.data(), f.block_size, {});
    std::vector<float> scale(n), min(n), encoded(n), y(n);
    read_grid(f.format, block.data(), scale.data(), min.data());
    f.decode(block.data(), encoded.data(), f.block_size);
    std::vector<std::uint8_t> codes(n);
    for (std::size_t shift = 0; shift < codec->levels.size(); ++shift) {
      for (std::size_t i = 0; i < n; ++i) {
        codes[i] = static_cast<std::uint8_t>((i * 7 + shift) % codec->levels.size());
      }
      codec->write(block.data(), codes.data());
      f.decode(block.data(), y.data(), f.block_size);
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t g = i / static_cast<std::size_t>(codec->group);
        const float want = scale[g] * codec->levels[codes[i]] + min[g];
        ASSERT_EQ(y[i], want) << i;
      }
    }
    // The encoder's own values are on the grid: their nearest codes give them back.
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t g = i / static_cast<std::size_t>(codec->group);
      float best = INFINITY;
      for (std::size_t c = 0; c < codec->levels.size(); ++c) {
        const float off = std::fabs(scale[g] * codec->levels[c] + min[g] - encoded[i]);
        if (off < best) {
          best = off;
          codes[i] = static_cast<std::uint8_t>(c);
        }
      }
    }
    codec->write(block.data(), codes.data());
    f.decode(block.data(), y.data(), f.block_size);
    EXPECT_EQ(y, encoded);
  }
}

// What read_grid gave is stored unchanged, also where codes differ.
TEST(Grid, WrittenScalesAreReadBack) {
  for (const FormatInfo& f : all_formats()) {
    const GridCodec* codec = grid_codec(f.format);
    if (codec == nullptr) continue;
    SCOPED_TRACE(f.name);
    for (const bool search : {false, true}) {
      const std::vector<float> x = random_row(f.block_size, 11);
      std::vector<std::byte> block(static_cast<std::size_t>(f.block_bytes));
      f.encode(x.data(), block.data(), f.block_size, {.search = search});
      float scale[16], min[16];
      read_grid(f.format, block.data(), scale, min);
      std::vector<std::byte> copy = block;
      write_grid(f.format, copy.data(), scale, min);
      EXPECT_EQ(copy, block);
    }
  }
}

// Other scales are stored as near as the format's own steps allow, also into a block that had none.
TEST(Grid, WrittenScalesAreNear) {
  for (const FormatInfo& f : all_formats()) {
    const GridCodec* codec = grid_codec(f.format);
    if (codec == nullptr) continue;
    SCOPED_TRACE(f.name);
    const auto groups = static_cast<std::size_t>(f.block_size / codec->group);
    Rng rng(5);
    for (const bool zeroed : {true, false}) {
      const std::vector<float> x = random_row(f.block_size, 12);
      std::vector<std::byte> block(static_cast<std::size_t>(f.block_bytes));
      if (!zeroed) f.encode(x.data(), block.data(), f.block_size, {});
      std::vector<float> scale(groups), min(groups), got_scale(groups), got_min(groups);
      for (std::size_t g = 0; g < groups; ++g) {
        scale[g] = rng.uniform(0.01f, 0.02f);
        min[g] = codec->dmin_offset < 0 ? 0.0f : -rng.uniform(0.1f, 0.2f);
      }
      write_grid(f.format, block.data(), scale.data(), min.data());
      read_grid(f.format, block.data(), got_scale.data(), got_min.data());
      // Half of a step: f16's, of 1/15 (q2_k) to 1/128 of the largest, or of a power of two.
      const float step = f.format == Format::kMXFP4 ? 0.5f * scale[0]
                         : groups == 1              ? 0x1p-10f * 0.02f
                                                    : 0.02f / 14;
      for (std::size_t g = 0; g < groups; ++g) {
        EXPECT_NEAR(got_scale[g], scale[g], step) << g;
        EXPECT_NEAR(got_min[g], min[g], 10 * step) << g;
      }
    }
  }
}

TEST(Grid, WrittenNaNsDecodeToNaN) {
  for (const Format format : {Format::kQ4_0, Format::kQ4_K, Format::kQ3_K, Format::kIQ4_XS}) {
    const FormatInfo& f = format_info(format);
    std::vector<std::byte> block(static_cast<std::size_t>(f.block_bytes));
    const std::vector<float> nans(16, NAN), mins(16, 0.0f);
    write_grid(format, block.data(), nans.data(), mins.data());
    std::vector<float> y(static_cast<std::size_t>(f.block_size));
    f.decode(block.data(), y.data(), f.block_size);
    EXPECT_TRUE(std::isnan(y[0])) << f.name;
  }
}

}  // namespace
}  // namespace narrow::formats

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
        ASSERT_NEAR(y[i], want, 1e-5f * (1 + std::fabs(want))) << i;
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

}  // namespace
}  // namespace narrow::formats

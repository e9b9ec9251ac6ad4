// Every format that the Python package gguf can decode: the same random blocks give the same bits.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow {
namespace {

constexpr std::int64_t kBlocks = 1200;  // enough to meet every entry of the largest grid

// Bytes of each block at which an f16 scale starts. Random bits there are kept finite, as in real files.
const std::map<std::string_view, std::vector<int>> kScaleOffsets = {
    {"f16", {0}},     {"q4_0", {0}},      {"q4_1", {0, 2}}, {"q5_0", {0}},    {"q5_1", {0, 2}},
    {"q8_0", {0}},    {"q2_k", {80, 82}}, {"q3_k", {108}},  {"q4_k", {0, 2}}, {"q5_k", {0, 2}},
    {"q6_k", {208}},  {"iq1_s", {0}},     {"iq2_xxs", {0}}, {"iq2_xs", {0}},  {"iq2_s", {0}},
    {"iq3_xxs", {0}}, {"iq3_s", {0}},     {"iq4_nl", {0}},  {"iq4_xs", {0}},  {"tq1_0", {52}},
    {"tq2_0", {64}},
};

std::string random_blocks(const FormatInfo& info) {
  Rng rng(0x5eed0000u + static_cast<std::uint32_t>(info.format));
  std::string bytes(static_cast<std::size_t>(kBlocks * info.block_bytes), '\0');
  for (char& c : bytes) c = static_cast<char>(rng.next_u64() >> 56);
  constexpr unsigned char kTopExponentBit = 0x40;
  for (std::int64_t b = 0; b < kBlocks; ++b) {
    char* block = bytes.data() + b * info.block_bytes;
    if (const auto it = kScaleOffsets.find(info.name); it != kScaleOffsets.end()) {
      for (const int offset : it->second) {
        if ((block[offset + 1] & 0x7c) == 0x7c)
          block[offset + 1] = static_cast<char>(block[offset + 1] & ~kTopExponentBit);
      }
    }
    // iq1_m spreads its scale over four words; the top exponent bit is in the last byte.
    if (info.format == Format::kIQ1_M) block[55] = static_cast<char>(block[55] & ~kTopExponentBit);
  }
  return bytes;
}

constexpr const char* kPython = R"py(
import pathlib, sys, numpy as np, gguf
from gguf.quants import dequantize
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.bin")):
    try:
        kind = gguf.GGMLQuantizationType[path.stem.upper()]
        data = np.fromfile(path, dtype=np.uint8)
        with np.errstate(all="ignore"):
            out = dequantize(data.reshape(1, -1), kind)
    except (KeyError, NotImplementedError):
        continue
    out.astype(np.float32, copy=False).tofile(path.with_suffix(".f32"))
    print(path.stem)
)py";

TEST(DecodeOracle, RandomBlocksDecodeToTheBitsOfGguf) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  std::set<std::string> expected;
  for (const FormatInfo& info : all_formats()) {
    if (info.decode == nullptr) continue;
    testing::write_file(dir / (std::string(info.name) + ".bin"), random_blocks(info));
    // gguf has no decoder for f64 and no f8.
    if (info.in_gguf() && info.format != Format::kF64) expected.insert(std::string(info.name));
  }
  std::istringstream done(testing::run_python(kPython, {dir.path().string()}));
  std::set<std::string> names;
  for (std::string name; done >> name;) names.insert(name);
  EXPECT_EQ(names, expected);

  for (const std::string& name : names) {
    const FormatInfo& info = *find_format(std::string_view(name));
    const std::string bytes = testing::read_file(dir / (name + ".bin"));
    const std::string want_bytes = testing::read_file(dir / (name + ".f32"));
    const std::int64_t k = kBlocks * info.block_size;
    ASSERT_EQ(want_bytes.size(), static_cast<std::size_t>(k) * sizeof(float)) << name;
    std::vector<float> want(static_cast<std::size_t>(k)), got(want.size());
    std::memcpy(want.data(), want_bytes.data(), want_bytes.size());
    // Rows of mapped files start anywhere: decode from an odd address.
    std::vector<std::byte> shifted(bytes.size() + 1);
    std::memcpy(shifted.data() + 1, bytes.data(), bytes.size());
    ASSERT_OK(decode_row(info.format, shifted.data() + 1, got.data(), k));
    int shown = 0;
    for (std::size_t i = 0; i < want.size() && shown < 3; ++i) {
      if (std::bit_cast<std::uint32_t>(want[i]) == std::bit_cast<std::uint32_t>(got[i])) continue;
      ADD_FAILURE() << name << " element " << i << ": " << got[i] << ", gguf has " << want[i];
      ++shown;
    }
  }
}

}  // namespace
}  // namespace narrow

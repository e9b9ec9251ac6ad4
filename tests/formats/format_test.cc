// The table of formats: ids, names, sizes and the checks in front of the codecs.
#include "formats/format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "testing/testing.h"

namespace narrow {
namespace {

TEST(Format, IdsAndNamesAreUnique) {
  std::set<std::uint32_t> ids;
  std::set<std::string_view> names;
  for (const FormatInfo& f : all_formats()) {
    EXPECT_TRUE(ids.insert(static_cast<std::uint32_t>(f.format)).second) << f.name;
    EXPECT_TRUE(names.insert(f.name).second) << f.name;
    EXPECT_EQ(&format_info(f.format), &f);
    EXPECT_EQ(find_format(f.name), &f);
    EXPECT_EQ(find_format(static_cast<std::uint32_t>(f.format)), f.in_gguf() ? &f : nullptr) << f.name;
    EXPECT_EQ(f.decode == nullptr, f.kind == FormatKind::kInteger) << f.name;
  }
}

TEST(Format, NamesCompareWithoutCase) {
  ASSERT_NE(find_format("Q4_K"), nullptr);
  EXPECT_EQ(find_format("Q4_K")->format, Format::kQ4_K);
  EXPECT_EQ(find_format("q4"), nullptr);
  EXPECT_EQ(find_format(""), nullptr);
  EXPECT_EQ(find_format(4u), nullptr);  // q4_2, removed from ggml
  EXPECT_EQ(find_format(kFirstPrivateId), nullptr);
}

// gguf's own table of ids, block sizes and block bytes.
TEST(Format, SizesAreThoseOfGguf) {
  NARROW_REQUIRE_PYTHON();
  std::string want;
  std::vector<std::string> ids;
  for (const FormatInfo& f : all_formats()) {
    if (!f.in_gguf()) continue;
    ids.push_back(std::to_string(static_cast<std::uint32_t>(f.format)));
    want += fmt::format("{} {} {}\n", f.name, f.block_size, f.block_bytes);
  }
  EXPECT_EQ(testing::run_python("import gguf, sys\n"
                                "for i in sys.argv[1:]:\n"
                                "  t = gguf.GGMLQuantizationType(int(i))\n"
                                "  print(t.name.lower(), *gguf.GGML_QUANT_SIZES[t])",
                                ids),
            want);
}

TEST(Format, RowBytesAndBpw) {
  EXPECT_EQ(row_bytes(Format::kQ4_K, 512), 288u);
  EXPECT_EQ(row_bytes(Format::kF16, 3), 6u);
  EXPECT_DOUBLE_EQ(format_info(Format::kQ6_K).bpw(), 6.5625);
}

TEST(Format, CodecsRefuseWhatTheyCannotDo) {
  std::vector<float> x(64, 1.0f);
  std::vector<std::byte> bytes(1024);
  const Status length = encode_row(Format::kQ4_0, x.data(), bytes.data(), 33);
  ASSERT_FALSE(length.ok());
  EXPECT_EQ(length.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(length.error().message, "q4_0: row length 33 is not a multiple of its block of 32");
  EXPECT_EQ(decode_row(Format::kQ4_0, bytes.data(), x.data(), -32).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(encode_row(Format::kF8_E4M3, x.data(), bytes.data(), 64).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(decode_row(Format::kI32, bytes.data(), x.data(), 4).error().code, ErrorCode::kUnsupported);
  EXPECT_OK(encode_row(Format::kQ4_0, x.data(), bytes.data(), 0));
}

TEST(Format, FindNonFiniteNamesTheFirst) {
  for (const std::int64_t k : {1, 7, 256, 257, 1000}) {
    std::vector<float> x(static_cast<std::size_t>(k), std::numeric_limits<float>::max());
    EXPECT_EQ(find_non_finite(x.data(), k), -1);
    x.back() = std::numeric_limits<float>::infinity();
    EXPECT_EQ(find_non_finite(x.data(), k), k - 1);
    x[static_cast<std::size_t>(k / 2)] = std::nanf("");
    EXPECT_EQ(find_non_finite(x.data(), k), k / 2);
  }
}

}  // namespace
}  // namespace narrow

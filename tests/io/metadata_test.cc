#include "io/gguf/metadata.h"

#include <gtest/gtest.h>

#include <limits>

namespace narrow::io::gguf {
namespace {

TEST(Metadata, KeepsOrderReplacesInPlaceAndErases) {
  Metadata m;
  m.set_u32("a", 1);
  m.set_string("b", "x");
  m.set_bool("c", true);
  m.set_string("a", "now text");
  ASSERT_EQ(m.entries().size(), 3u);
  EXPECT_EQ(m.entries()[0].first, "a");
  EXPECT_EQ(m.get_string("a"), "now text");
  EXPECT_EQ(m.get_int("a"), std::nullopt);
  m.erase("a");
  m.erase("not there");
  ASSERT_EQ(m.entries().size(), 2u);
  EXPECT_EQ(m.get_string("b"), "x");
  EXPECT_EQ(m.get_bool("c"), true);
  m.set_u32("d", 4);
  EXPECT_EQ(m.entries()[2].first, "d");
  EXPECT_EQ(m.get_int("d"), 4);
}

TEST(Metadata, IntegersOfAnyWidth) {
  const std::pair<Value, std::int64_t> rows[] = {
      {Value{std::uint8_t{200}}, 200},
      {Value{std::int8_t{-5}}, -5},
      {Value{std::uint16_t{60000}}, 60000},
      {Value{std::int16_t{-300}}, -300},
      {Value{std::uint32_t{4000000000u}}, 4000000000},
      {Value{std::int32_t{-7}}, -7},
      {Value{std::uint64_t{1} << 40}, std::int64_t{1} << 40},
      {Value{std::numeric_limits<std::int64_t>::min()}, std::numeric_limits<std::int64_t>::min()},
  };
  for (const auto& [value, want] : rows) {
    Metadata m;
    m.set("k", value);
    EXPECT_EQ(m.get_int("k"), want) << value_type_name(value.type());
    EXPECT_EQ(m.get_float("k"), static_cast<double>(want));
    EXPECT_EQ(m.get_bool("k"), std::nullopt);
  }
  Metadata m;
  m.set_u64("huge", std::numeric_limits<std::uint64_t>::max());
  m.set_bool("flag", true);
  m.set_f32("f", 1.5f);
  EXPECT_EQ(m.get_int("huge"), std::nullopt);
  EXPECT_EQ(m.get_int("flag"), std::nullopt);
  EXPECT_EQ(m.get_float("flag"), std::nullopt);
  EXPECT_EQ(m.get_int("f"), std::nullopt);
  EXPECT_EQ(m.get_float("f"), 1.5);
  EXPECT_EQ(m.get_int("absent"), std::nullopt);
}

TEST(Metadata, Lists) {
  Metadata m;
  m.set_strings("s", {"a", "b"});
  m.set_i32s("i", {-1, 2});
  m.set_f32s("f", {0.5f, -2});
  m.set_bools("b", {true, false, true});
  m.set("u8", Value{Array{ValueType::kU8, std::vector<std::uint8_t>{1, 255}}});
  m.set("f64", Value{Array{ValueType::kF64, std::vector<double>{0.25}}});
  m.set("u64", Value{Array{ValueType::kU64, std::vector<std::uint64_t>{~std::uint64_t{0}}}});
  ASSERT_NE(m.get_strings("s"), nullptr);
  EXPECT_EQ(*m.get_strings("s"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(m.get_ints("i"), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(m.get_ints("u8"), (std::vector<std::int64_t>{1, 255}));
  EXPECT_EQ(m.get_ints("u64"), std::nullopt);
  EXPECT_EQ(m.get_floats("f"), (std::vector<float>{0.5f, -2}));
  EXPECT_EQ(m.get_floats("f64"), (std::vector<float>{0.25f}));
  EXPECT_EQ(m.get_bools("b"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(m.get_strings("i"), nullptr);
  EXPECT_EQ(m.get_ints("b"), std::nullopt);
  EXPECT_EQ(m.get_floats("i"), std::nullopt);
  EXPECT_EQ(m.get_bools("i"), std::nullopt);
  EXPECT_EQ(std::get<Array>(m.find("b")->v).size(), 3u);
}

}  // namespace
}  // namespace narrow::io::gguf

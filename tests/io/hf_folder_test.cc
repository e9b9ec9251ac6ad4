#include "io/hf_config/hf_folder.h"

#include <chrono>

#include "io/caps.h"
#include "testing/testing.h"

namespace narrow::io {
namespace {

TEST(ReadJson, KeepsOrderAndLastDuplicate) {
  testing::TempDir dir;
  testing::write_file(dir / "a.json",
                      "\xef\xbb\xbf{\"z\": 1, \"a\": [true, null, -2, 1.5, \"\\u00e9\\n\", {}], \"z\": "
                      "{\"k\": 18446744073709551615}}\n");
  ASSERT_OK_AND_ASSIGN(const Json j, read_json(dir / "a.json"));
  EXPECT_EQ(j.dump(), "{\"z\":{\"k\":18446744073709551615},\"a\":[true,null,-2,1.5,\"\xc3\xa9\\n\",{}]}");
}

TEST(ReadJson, ErrorsNameFileLineAndColumn) {
  testing::TempDir dir;
  const auto nested = [](int depth) {
    std::string s(static_cast<std::size_t>(depth), '[');
    return s + std::string(static_cast<std::size_t>(depth), ']');
  };
  const std::pair<std::string, const char*> rows[] = {
      {"", "line 1, column 1"},
      {"{\n  \"a\": 1,\n  oops\n}", "line 3, column 3"},
      {"{\"a\": 1} x", "line 1, column 10"},
      {"{\"a\": \"\xff\"}", "invalid string"},
      {"[1e999]", "number overflow"},
      {"{\"a\": NaN}", "line 1, column 7"},
      {nested(caps::kMaxJsonDepth + 1), "nested deeper than 128 levels"},
      {std::string(10'000'000, '['), "nested deeper than 128 levels"},
  };
  for (const auto& [text, message] : rows) {
    testing::write_file(dir / "a.json", text);
    const auto r = read_json(dir / "a.json");
    ASSERT_FALSE(r.ok()) << message;
    EXPECT_EQ(r.error().code, ErrorCode::kCorrupt);
    EXPECT_TRUE(r.error().message.starts_with((dir / "a.json").string())) << r.error().message;
    EXPECT_NE(r.error().message.find(message), std::string::npos) << r.error().message;
    EXPECT_EQ(r.error().message.find('\n'), std::string::npos) << r.error().message;
  }
  testing::write_file(dir / "a.json", nested(caps::kMaxJsonDepth));
  EXPECT_OK(read_json(dir / "a.json"));
  EXPECT_EQ(read_json(dir / "b.json").error().code, ErrorCode::kNotFound);
}

TEST(ReadJson, LargeVocabularyInLinearTime) {
  testing::TempDir dir;
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) text += fmt::format("{}\"token{}\":{}", i ? "," : "", i, i);
  testing::write_file(dir / "vocab.json", text + "}");
  const auto start = std::chrono::steady_clock::now();
  ASSERT_OK_AND_ASSIGN(const Json j, read_json(dir / "vocab.json"));
  EXPECT_EQ(j.size(), 300'000u);
  // A quadratic parser takes minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(HfFolder, SaysWhatTheFolderLacks) {
  testing::TempDir dir;
  EXPECT_NE(HfFolder::open(dir.path())
                .error()
                .message.find("is not a Hugging Face model folder: config.json is missing"),
            std::string::npos);
  EXPECT_EQ(HfFolder::open(dir / "none").error().code, ErrorCode::kNotFound);
  testing::write_file(dir / "file", "x");
  EXPECT_EQ(HfFolder::open(dir / "file").error().code, ErrorCode::kInvalidArgument);
  testing::write_file(dir / "config.json", "[1]");
  EXPECT_NE(HfFolder::open(dir.path()).error().message.find("config.json: holds a JSON array, not an object"),
            std::string::npos);
}

TEST(HfFolder, OptionalFiles) {
  testing::TempDir dir;
  testing::write_file(dir / "config.json", R"({"model_type":"llama"})");
  {
    ASSERT_OK_AND_ASSIGN(const HfFolder f, HfFolder::open(dir.path()));
    EXPECT_EQ(f.config["model_type"], "llama");
    EXPECT_FALSE(f.generation_config || f.tokenizer_config || f.chat_template);
  }
  testing::write_file(dir / "generation_config.json", R"({"eos_token_id":2})");
  ASSERT_OK_AND_ASSIGN(const HfFolder f, HfFolder::open(dir.path()));
  EXPECT_EQ((*f.generation_config)["eos_token_id"], 2);
  testing::write_file(dir / "generation_config.json", "{");
  EXPECT_EQ(HfFolder::open(dir.path()).error().code, ErrorCode::kCorrupt);
}

TEST(HfFolder, ChatTemplate) {
  const struct {
    const char* tokenizer_config;
    std::optional<std::string> want;
    bool ok;
  } rows[] = {
      {R"({"chat_template":"T"})", "T", true},
      {R"({"chat_template":null})", std::nullopt, true},
      {R"({})", std::nullopt, true},
      {R"({"chat_template":[{"name":"tool_use","template":"U"},{"name":"default","template":"D"}]})", "D",
       true},
      {R"({"chat_template":[{"name":"tool_use","template":"U"}]})", std::nullopt, true},
      {R"({"chat_template":[{"name":"default"}]})", std::nullopt, false},
      {R"({"chat_template":["x"]})", std::nullopt, false},
      {R"({"chat_template":7})", std::nullopt, false},
  };
  for (const auto& row : rows) {
    testing::TempDir dir;
    testing::write_file(dir / "config.json", "{}");
    testing::write_file(dir / "tokenizer_config.json", row.tokenizer_config);
    const auto f = HfFolder::open(dir.path());
    ASSERT_EQ(f.ok(), row.ok) << row.tokenizer_config;
    if (!row.ok) {
      EXPECT_NE(f.error().message.find("tokenizer_config.json: 'chat_template'"), std::string::npos);
      continue;
    }
    EXPECT_EQ(f->chat_template, row.want) << row.tokenizer_config;
    testing::write_file(dir / "chat_template.jinja", "J\n");
    ASSERT_OK_AND_ASSIGN(const HfFolder with_file, HfFolder::open(dir.path()));
    EXPECT_EQ(with_file.chat_template, "J\n");
  }
}

TEST(HfFolder, OpensEveryTinyModel) {
  NARROW_REQUIRE_SHARED();
  int n = 0;
  for (const auto& e : std::filesystem::directory_iterator(testing::shared_data() / "tiny-models")) {
    if (!e.is_directory()) continue;
    ASSERT_OK_AND_ASSIGN(const HfFolder f, HfFolder::open(e.path()));
    EXPECT_TRUE(f.config.contains("model_type")) << e.path();
    ++n;
  }
  EXPECT_EQ(n, 15);
}

}  // namespace
}  // namespace narrow::io

// Tokenizers from GGUF files: llama.cpp's own vectors, and real models that decode what they encode.
#include <sstream>

#include "io/gguf/reader.h"
#include "io/tokenizer/tokenizer_files.h"
#include "testing/testing.h"
#include "text/tokenizer.h"

namespace narrow::io {
namespace {

namespace fs = std::filesystem;
using text::EncodeTextOptions;
using text::TokenId;

constexpr EncodeTextOptions kPlain{.add_special = false, .parse_special = false};

Result<std::shared_ptr<const text::Tokenizer>> open_gguf(const fs::path& file) {
  NARROW_ASSIGN(const gguf::Reader reader, gguf::Reader::open(file));
  NARROW_ASSIGN(text::TokenizerSpec spec, tokenizer_spec_from_gguf(reader.metadata()));
  return text::Tokenizer::create(std::move(spec));
}

std::vector<std::string> split(const std::string& s, const std::string& separator) {
  std::vector<std::string> out;
  for (std::size_t pos = 0; pos < s.size();) {
    const std::size_t next = s.find(separator, pos);
    out.push_back(s.substr(pos, next == std::string::npos ? next : next - pos));
    if (next == std::string::npos) break;
    pos = next + separator.size();
  }
  return out;
}

TEST(GgufTokenizer, EqualsLlamaCppVectors) {
  NARROW_REQUIRE_SHARED();
  int files = 0;
  for (const char* name : {"gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"}) {
    const fs::path file = testing::shared_data() / "vocab" / ("ggml-vocab-" + std::string(name) + ".gguf");
    SCOPED_TRACE(file);
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, open_gguf(file));
    const auto inputs = split(testing::read_file(file.string() + ".inp"), "\n__ggml_vocab_test__\n");
    const auto outputs = split(testing::read_file(file.string() + ".out"), "\n");
    ASSERT_EQ(inputs.size(), outputs.size());
    ASSERT_GT(inputs.size(), 30u);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      std::istringstream line(outputs[i]);
      std::vector<TokenId> wanted;
      for (TokenId id; line >> id;) wanted.push_back(id);
      ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->encode(inputs[i], kPlain));
      EXPECT_EQ(ids, wanted) << "text: " << inputs[i];
    }
    ++files;
  }
  EXPECT_EQ(files, 6);
}

std::string odd_text() {
  std::string s =
      "  two leading spaces\n\n\tTabs\there \r\n and\u00a0no-break; 1234567890 3.14159 x²\n"
      "I'll we've DON'T can't; \"quotes\" 'single' — dash… ünïcödé na\u0308ive 我想在apple工作 こんにちは "
      "한국어 عربي\n"
      "😀👩‍👩‍👧‍👦🇩🇪 \x01\x02\x7f end  of   line    \n\n\n   ";
  s += '\0';
  return s + "nul";
}

TEST(GgufTokenizer, RealModelsDecodeWhatTheyEncode) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : {"smollm2-q4_1.gguf", "gemma3-270m-q4_k_m.gguf"}) {
    const fs::path file = testing::cache_dir() / "models" / name;
    if (!fs::exists(file)) GTEST_SKIP() << file << " was not downloaded (scripts/models.sh)";
    SCOPED_TRACE(file);
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, open_gguf(file));
    const std::string wiki = testing::read_file(testing::shared_data() / "text" / "wikitext2-test.txt");
    const std::string many = testing::read_file(testing::shared_data() / "text" / "calib-multilingual.txt");
    for (const std::string& text : {odd_text(), wiki.substr(0, 300000), many}) {
      ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->encode(text, kPlain));
      ASSERT_OK_AND_ASSIGN(const std::string back, tokenizer->decode(ids, false));
      EXPECT_TRUE(back == text) << "lengths " << back.size() << " " << text.size();
      text::StreamDecoder stream(tokenizer, false);
      std::string streamed;
      for (const TokenId id : ids) streamed += stream.push(id);
      streamed += stream.flush();
      EXPECT_TRUE(streamed == text);
    }
  }
}

}  // namespace
}  // namespace narrow::io

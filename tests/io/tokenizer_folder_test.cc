// Tokenizer folders of real models, against the packages tokenizers and sentencepiece.
#include <chrono>

#include "io/tokenizer/tokenizer_files.h"
#include "io/tokenizer_oracle.h"
#include "text/tokenizer.h"

namespace narrow::io {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* folder;
  const char* oracle;          // %: the folder
  const char* file = nullptr;  // in the folder; else the folder's own choice
  bool is_sentencepiece = false;
};

std::string expand(std::string s, const std::string& folder) {
  for (std::size_t at; (at = s.find('%')) != std::string::npos;) s.replace(at, 1, folder);
  return s;
}

class TokenizerFolder : public ::testing::TestWithParam<Case> {};

TEST_P(TokenizerFolder, EqualsTheOracle) {
  NARROW_REQUIRE_SHARED();
  if (testing::oracle_python().empty()) GTEST_SKIP() << "no Python with the oracle packages";
  const fs::path folder = testing::shared_data() / "tokenizers" / GetParam().folder;
  const char* file = GetParam().file;
  ASSERT_OK_AND_ASSIGN(const auto spec,
                       file ? tokenizer_spec_from_file(folder / file) : tokenizer_spec_from_folder(folder));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, text::Tokenizer::create(spec));
  std::vector<std::string> texts = testing::odd_texts();
  const std::vector<std::string> whole = testing::whole_texts();
  ASSERT_EQ(whole.size(), 9u);
  texts.insert(texts.end(), whole.begin(), whole.end());
  const auto answers = testing::ask_oracle(expand(GetParam().oracle, folder.string()), texts);
  ASSERT_EQ(answers.size(), texts.size());
  // sentencepiece never parses special tokens.
  const bool parse = !GetParam().is_sentencepiece;
  double seconds = 0, bytes = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("text " + std::to_string(i) + ": " + texts[i].substr(0, 120));
    const auto start = std::chrono::steady_clock::now();
    ASSERT_OK_AND_ASSIGN(const auto ids,
                         tokenizer->encode(texts[i], {.add_special = true, .parse_special = parse}));
    if (texts[i].size() > testing::kLongText) {
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      bytes += static_cast<double>(texts[i].size());
    }
    EXPECT_TRUE(ids == answers[i].ids) << testing::first_difference(ids, answers[i].ids);
    if (texts[i].size() > testing::kLongText) continue;
    ASSERT_OK_AND_ASSIGN(const auto plain,
                         tokenizer->encode(texts[i], {.add_special = false, .parse_special = parse}));
    EXPECT_EQ(plain, std::vector<text::TokenId>(ids.begin() + (spec.add_bos ? 1 : 0), ids.end()));
    ASSERT_OK_AND_ASSIGN(const std::string decoded, tokenizer->decode(ids, true));
    EXPECT_EQ(decoded, answers[i].decoded);
    if (!parse) continue;  // sentencepiece writes unknown and control tokens its own way
    ASSERT_OK_AND_ASSIGN(const std::string all, tokenizer->decode(ids, false));
    EXPECT_EQ(all, answers[i].decoded_all);
  }
  std::printf("%s: %.1f MB/s\n", GetParam().folder, bytes / 1e6 / seconds);
}

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerFolder,
    ::testing::Values(Case{"gpt2", "gpt2|%/encoder.json|%/vocab.bpe"},
                      Case{"llama2", "json|%/tokenizer.json"}, Case{"llama3_1", "json|%/tokenizer.json"},
                      Case{"qwen3", "json|%/tokenizer.json"}, Case{"tiny-test", "json|%/tokenizer.json"},
                      Case{"llama2", "spm|%/tokenizer.model", "tokenizer.model", true},
                      Case{"mistral", "spm|%/mistral_instruct_tokenizer_240323.model.v3", nullptr, true}),
    [](const auto& param_info) {
      std::string name = param_info.param.folder;
      if (param_info.param.file) name += "_model";
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace narrow::io

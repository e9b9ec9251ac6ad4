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

std::string first_difference(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  std::size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  std::string out = "sizes " + std::to_string(a.size()) + " and " + std::to_string(b.size()) + ", at " +
                    std::to_string(i) + ":";
  for (std::size_t k = i; k < i + 8; ++k) {
    out +=
        ' ' + (k < a.size() ? std::to_string(a[k]) : "-") + '/' + (k < b.size() ? std::to_string(b[k]) : "-");
  }
  return out;
}

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
    ASSERT_OK_AND_ASSIGN(const auto plain,
                         tokenizer->encode(texts[i], {.add_special = false, .parse_special = parse}));
    if (texts[i].size() > 200000) {
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      bytes += static_cast<double>(texts[i].size());
    }
    EXPECT_TRUE(plain == answers[i].plain) << first_difference(plain, answers[i].plain);
    ASSERT_OK_AND_ASSIGN(const auto special,
                         tokenizer->encode(texts[i], {.add_special = true, .parse_special = parse}));
    EXPECT_TRUE(special == answers[i].special) << first_difference(special, answers[i].special);
    ASSERT_OK_AND_ASSIGN(const std::string decoded, tokenizer->decode(special, true));
    EXPECT_TRUE(decoded == answers[i].decoded) << decoded.substr(0, 200);
    if (parse) {
      ASSERT_OK_AND_ASSIGN(const std::string all, tokenizer->decode(special, false));
      EXPECT_TRUE(all == answers[i].decoded_all) << all.substr(0, 200);
    }
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

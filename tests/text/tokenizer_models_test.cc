// Small vocabularies by hand, and unigram models against Hugging Face's.
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "testing/testing.h"
#include "text/tokenizer.h"
#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

using nlohmann::json;
using Ids = std::vector<TokenId>;

TokenizerSpec byte_spec(std::vector<std::pair<std::string, std::string>> merges) {
  TokenizerSpec spec;
  for (int b = 0; b < 256; ++b) spec.tokens.emplace_back(byte_to_printable(static_cast<std::uint8_t>(b)));
  for (const auto& [a, b] : merges) spec.tokens.push_back(a + b);
  spec.merges = std::move(merges);
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  spec.decoder.push_back({});
  return spec;
}

Ids encode(const TokenizerSpec& spec, std::string_view text) {
  const auto t = Tokenizer::create(spec);
  EXPECT_TRUE(t.ok()) << (t.ok() ? "" : t.error().message);
  if (!t.ok()) return {};
  const auto ids = (*t)->encode(text);
  EXPECT_TRUE(ids.ok());
  return ids.ok() ? *ids : Ids();
}

TEST(ByteBpe, MergesLowestRankLeftmostFirst) {
  const TokenizerSpec spec = byte_spec({{"b", "c"}, {"a", "b"}, {"a", "a"}, {"aa", "a"}});
  EXPECT_EQ(encode(spec, "abc"), (Ids{'a', 256}));
  EXPECT_EQ(encode(spec, "abab"), (Ids{257, 257}));
  EXPECT_EQ(encode(spec, "aaaaa"), (Ids{258, 259}));
  EXPECT_EQ(encode(spec, "\n"), (Ids{'\n'}));
}

TEST(ByteBpe, LongWordsTakeNLogN) {
  const TokenizerSpec spec = byte_spec({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}});
  EXPECT_EQ(encode(spec, std::string(1 << 20, 'a')).size(), (1u << 20) / 8);
}

TEST(ByteBpe, BytesWithoutTokenVanishOrBecomeUnknown) {
  TokenizerSpec spec;
  spec.tokens = {"a", "b", "ab", "<unk>"};
  spec.types.assign(4, TokenType::kNormal);
  spec.merges = {{"a", "b"}};
  EXPECT_EQ(encode(spec, "axb"), (Ids{2}));
  spec.unk = 3;
  spec.unk_for_bytes = true;
  EXPECT_EQ(encode(spec, "axyb"), (Ids{0, 3, 3, 1}));
  spec.fuse_unknown = true;
  EXPECT_EQ(encode(spec, "axyb"), (Ids{0, 3, 1}));
}

TEST(Tokenizer, BadSpecsAreRefused) {
  const auto code = [](const TokenizerSpec& s) { return Tokenizer::create(s).error().code; };
  TokenizerSpec spec;
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  spec = byte_spec({{"a", "b"}});
  spec.merges.push_back({"q", "zz"});
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  spec = byte_spec({});
  spec.eos = 256;
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  spec = byte_spec({});
  spec.added = {{.id = -1}};
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  spec = byte_spec({});
  spec.add_bos = true;
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  spec = byte_spec({});
  spec.types.pop_back();
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  PreStep bad;
  bad.pattern = "(";
  spec = byte_spec({});
  spec.pre_tokenizer = {bad};
  EXPECT_EQ(code(spec), ErrorCode::kCorrupt);
  spec = byte_spec({});
  ASSERT_OK_AND_ASSIGN(const auto t, Tokenizer::create(spec));
  EXPECT_EQ(t->decode({0, 256}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(t->decode({-1}).error().code, ErrorCode::kInvalidArgument);
}

TokenizerSpec spm_spec() {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kSpmBpe;
  spec.byte_fallback = true;
  spec.tokens = {"<unk>", "<s>", "</s>"};
  spec.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl};
  for (int b = 0; b < 256; ++b) {
    spec.tokens.push_back(byte_token(static_cast<std::uint8_t>(b)));
    spec.types.push_back(TokenType::kByte);
  }
  spec.scores.assign(spec.tokens.size(), 0.0f);
  float score = -1;
  for (const char* t : {"▁", "a", "b", "ab", "▁a", "▁ab", "<", "s", ">", "<s", "aa"}) {
    spec.tokens.emplace_back(t);
    spec.types.push_back(TokenType::kNormal);
    spec.scores.push_back(score--);
  }
  spec.unk = 0;
  spec.bos = 1;
  spec.eos = 2;
  spec.add_bos = true;
  for (const TokenId id : {0, 1, 2}) spec.added.push_back({.id = id, .special = true});
  return spec;
}

TEST(SpmBpe, MergesByScoreWithByteFallback) {
  const TokenizerSpec spec = spm_spec();
  EXPECT_EQ(encode(spec, "▁ab"), (Ids{1, 264}));        // "ab" first, then "▁ab"
  EXPECT_EQ(encode(spec, "▁aab"), (Ids{1, 263, 262}));  // "ab" beats "▁a" and "aa"
  EXPECT_EQ(encode(spec, "é"), (Ids{1, 3 + 0xc3, 3 + 0xa9}));
  EXPECT_EQ(encode(spec, "a</s>"), (Ids{1, 260, 2}));
}

TEST(SpmBpe, SpecialTextStaysTextWhenAsked) {
  ASSERT_OK_AND_ASSIGN(const auto t, Tokenizer::create(spm_spec()));
  ASSERT_OK_AND_ASSIGN(const Ids ids, t->encode("<s>", {.add_special = false, .parse_special = false}));
  EXPECT_EQ(ids, (Ids{268, 267}));  // "<s" and ">": never the control token, though its text would fit
}

TEST(Unigram, EqualsHuggingFaceOnRandomModels) {
  if (testing::oracle_python().empty()) GTEST_SKIP() << "no Python with the oracle packages";
  Rng rng(7);
  json models = json::array();
  std::vector<TokenizerSpec> specs;
  for (int k = 0; k < 4; ++k) {
    TokenizerSpec spec;
    spec.kind = TokenizerKind::kUnigram;
    spec.fuse_unknown = true;
    spec.tokens = {"<unk>"};
    spec.scores = {0.0f};
    spec.types = {TokenType::kUnknown};
    spec.unk = 0;
    spec.byte_fallback = k >= 2;
    for (int b = 0; b < 256 && spec.byte_fallback; ++b) {
      spec.tokens.push_back(byte_token(static_cast<std::uint8_t>(b)));
      spec.scores.push_back(-1.0f);
      spec.types.push_back(TokenType::kByte);
    }
    while (spec.tokens.size() < 400u) {
      std::string piece;
      for (std::uint64_t n = 1 + rng.next_u64() % 4; n > 0; --n) {
        const char* kChars[] = {"a", "b", "c", "▁", "é", "我"};
        piece += kChars[rng.next_u64() % 6];
      }
      if (std::find(spec.tokens.begin(), spec.tokens.end(), piece) != spec.tokens.end()) continue;
      spec.tokens.push_back(piece);
      spec.scores.push_back(rng.uniform(-9, -1));
      spec.types.push_back(TokenType::kNormal);
    }
    json vocab = json::array();
    for (std::size_t i = 0; i < spec.tokens.size(); ++i) vocab.push_back({spec.tokens[i], spec.scores[i]});
    models.push_back({{"vocab", vocab}, {"fallback", spec.byte_fallback}});
    specs.push_back(std::move(spec));
  }
  std::vector<std::string> texts = {"", "a", "xyz", "axya", "我é▁zzab😀"};
  for (int i = 0; i < 60; ++i) {
    std::string t;
    for (std::uint64_t n = rng.next_u64() % 60; n > 0; --n) {
      const char* kChars[] = {"a", "b", "c", "▁", "é", "我", "z", "😀"};
      t += kChars[rng.next_u64() % 8];
    }
    texts.push_back(t);
  }
  testing::TempDir dir;
  testing::write_file(dir / "in.json", json{{"models", models}, {"texts", texts}}.dump());
  const json wanted = json::parse(testing::run_python(R"py(
import json, sys
from tokenizers import Tokenizer, models
d = json.load(open(sys.argv[1]))
out = []
for m in d["models"]:
    t = Tokenizer(models.Unigram([tuple(x) for x in m["vocab"]], 0, m["fallback"]))
    out.append([t.encode(x).ids for x in d["texts"]])
print(json.dumps(out))
)py",
                                                      {(dir / "in.json").string()}),
                                  nullptr, false);
  ASSERT_EQ(wanted.size(), specs.size());
  for (std::size_t k = 0; k < specs.size(); ++k) {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(encode(specs[k], texts[i]), wanted[k][i].get<Ids>()) << "model " << k << ": " << texts[i];
    }
  }
}

TEST(StreamDecoder, NeverSplitsACharacter) {
  TokenizerSpec spec = byte_spec({});
  ASSERT_OK_AND_ASSIGN(const auto t, Tokenizer::create(spec));
  const std::string text = "aé我😀\xf0\x9f\x98z\xff!";
  ASSERT_OK_AND_ASSIGN(const Ids ids, t->encode("aé我😀"));
  StreamDecoder stream(t);
  std::string all;
  for (const char c : text) {
    const std::string part = stream.push(static_cast<unsigned char>(c));
    EXPECT_TRUE(is_valid_utf8(part));
    all += part;
  }
  all += stream.flush();
  EXPECT_EQ(all, sanitize_utf8(text));
  stream.push(0xf0);
  EXPECT_EQ(stream.flush(), "\ufffd");
}

TEST(StreamDecoder, DropsTheDummySpaceOnce) {
  TokenizerSpec spec = spm_spec();
  spec.decode_strips_space = true;
  ASSERT_OK_AND_ASSIGN(const auto t, Tokenizer::create(spec));
  StreamDecoder stream(t);
  std::string all;
  for (const TokenId id : {1, 264, 264}) all += stream.push(id);
  EXPECT_EQ(all, "ab ab");
}

TEST(StreamDecoder, KeepsTheLeadingSpaceOfAContinuation) {
  TokenizerSpec spec = spm_spec();
  spec.decode_strips_space = true;
  ASSERT_OK_AND_ASSIGN(const auto t, Tokenizer::create(spec));
  StreamDecoder stream(t, true, false);
  std::string all;
  for (const TokenId id : {264, 264}) all += stream.push(id);
  EXPECT_EQ(all, " ab ab");
}

TEST(CleanUp, AsTransformersDoes) {
  EXPECT_EQ(clean_up_spaces("do n't , I 'm . he 's ?"), "don't, I'm. he's?");
}

}  // namespace
}  // namespace narrow::text

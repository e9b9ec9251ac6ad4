// The parts of a tokenizer against Hugging Face's own components, by the same JSON-free description on both
// sides.
#include <nlohmann/json.hpp>

#include "testing/testing.h"
#include "text/pretokenizer_table.h"
#include "text/tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_normalizer.h"
#include "text/tokenizer_pre.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

using nlohmann::json;

const std::vector<std::string>& texts() {
  static const std::vector<std::string> list = {
      "Hello, world! It's 2024-11-25.",
      "  two  spaces\t\ttabs\n\nlines  ",
      "a1b22c333 4444 ²³ Ⅷ ٣٤",
      "don't you'LL we'Ve 'tis",
      "naïve cafe\u0301 \u212b \ufb01 İstanbul ΑΣ",
      "我想在apple工作1314151天～。ひらがなカタカナ한국어",
      "(a)[b]{c}<d>+e-f*g/h=i^j~k|l`m@n#o$p%q&r_s\\t",
      "x\u00a0y\u3000z\u2028w\u180ev\u0085u",
      "🚀👩‍👩‍👧🇩🇪 ✅",
      "xx--yy--zz--",
      "--",
      "12345678901234567890",
      "camelCaseABCdefГДЕжзи ǅx",
  };
  return list;
}

PreStep regex_step(const std::string& pattern, PreStep::Merge merge, bool removed = false,
                   bool invert = false) {
  PreStep s;
  s.pattern = pattern;
  s.merge = merge;
  s.removed = removed;
  s.invert = invert;
  return s;
}

std::vector<std::string> words_of(const std::vector<PreStep>& steps, std::string text) {
  const auto pre = PreTokenizer::create(steps);
  EXPECT_TRUE(pre.ok());
  std::vector<Span> words;
  EXPECT_OK(pre->split(text, true, words));
  std::vector<std::string> out;
  for (const Span& w : words) out.push_back(text.substr(w.begin, w.end - w.begin));
  return out;
}

// Runs Python code that has `texts` and prints one JSON value.
json ask(const std::string& code) {
  const std::string head =
      "import json,sys\nfrom tokenizers import Regex, pre_tokenizers as P, normalizers as N, decoders as D\n"
      "texts=json.loads(sys.argv[1])\n";
  return json::parse(testing::run_python(head + code, {json(texts()).dump()}), nullptr, false);
}

TEST(PreTokenizer, StepsEqualHuggingFaces) {
  if (testing::oracle_python().empty()) GTEST_SKIP() << "no Python with the oracle packages";
  using M = PreStep::Merge;
  PreStep digits, each_digit, punctuation, whitespace, whitespace_split, metaspace, metaspace_first,
      byte_level;
  digits.kind = each_digit.kind = PreStep::Kind::kDigits;
  each_digit.individual = true;
  punctuation.kind = PreStep::Kind::kPunctuation;
  whitespace.kind = PreStep::Kind::kWhitespace;
  whitespace_split.kind = PreStep::Kind::kWhitespaceSplit;
  metaspace.kind = metaspace_first.kind = PreStep::Kind::kMetaspace;
  metaspace.prepend_scheme = "always";
  metaspace_first.prepend_scheme = "first";
  metaspace_first.split = false;
  byte_level.kind = PreStep::Kind::kByteLevel;
  const std::pair<const char*, std::vector<PreStep>> cases[] = {
      {R"(P.Split("--","isolated"))", {regex_step("\\-\\-", M::kIsolated)}},
      {R"(P.Split("--","removed"))", {regex_step("\\-\\-", M::kIsolated, true)}},
      {R"(P.Split("--","merged_with_previous"))", {regex_step("\\-\\-", M::kMergedWithPrevious)}},
      {R"(P.Split("--","merged_with_next"))", {regex_step("\\-\\-", M::kMergedWithNext)}},
      {R"(P.Split("-","contiguous"))", {regex_step("\\-", M::kContiguous)}},
      {R"py(P.Split(Regex(r"\w+"),"removed",invert=True))py", {regex_step("\\w+", M::kIsolated, true, true)}},
      {R"py(P.Split(Regex(r"\s+"),"merged_with_next"))py", {regex_step("\\s+", M::kMergedWithNext)}},
      {R"py(P.Split(Regex(r"(?=(\d{3})+(?!\d))"),"isolated"))py",
       {regex_step(R"((?=(\d{3})+(?!\d)))", M::kIsolated)}},
      {R"py(P.Split(Regex(r"[\w']+|\W"),"isolated"))py", {regex_step(R"([\w']+|\W)", M::kIsolated)}},
      {"P.Digits(False)", {digits}},
      {"P.Digits(True)", {each_digit}},
      {"P.Punctuation()", {punctuation}},
      {"P.Whitespace()", {whitespace}},
      {"P.WhitespaceSplit()", {whitespace_split}},
      {"P.Metaspace(prepend_scheme='always')", {metaspace}},
      {"P.Metaspace(prepend_scheme='first',split=False)", {metaspace_first}},
      {"P.Sequence([P.WhitespaceSplit(),P.Metaspace(prepend_scheme='always')])",
       {whitespace_split, metaspace}},
      {"P.Sequence([P.WhitespaceSplit(),P.Metaspace(prepend_scheme='first')])",
       {whitespace_split,
        [&] {
          PreStep s = metaspace_first;
          s.split = true;
          return s;
        }()}},
      {"P.Sequence([P.Punctuation('contiguous'),P.Digits(True)])",
       {[&] {
          PreStep s = punctuation;
          s.merge = M::kContiguous;
          return s;
        }(),
        each_digit}},
  };
  std::string code = "out=[]\nfor p in [";
  for (const auto& [python, steps] : cases) code += std::string(python) + ",";
  code += "]:\n  out.append([[w for w,_ in p.pre_tokenize_str(t)] for t in texts])\nprint(json.dumps(out))";
  const json wanted = ask(code);
  ASSERT_EQ(wanted.size(), std::size(cases));
  for (std::size_t c = 0; c < std::size(cases); ++c) {
    for (std::size_t t = 0; t < texts().size(); ++t) {
      EXPECT_EQ(json(words_of(cases[c].second, texts()[t])), wanted[c][t])
          << cases[c].first << " of " << texts()[t];
    }
  }
}

// The rules by name against Hugging Face's engine (Oniguruma) on the same patterns.
TEST(PreTokenizer, NamedRulesEqualOniguruma) {
  if (testing::oracle_python().empty()) GTEST_SKIP() << "no Python with the oracle packages";
  json rules = json::array();
  for (const PreRule& r : pre_rules()) rules.push_back(r.patterns);
  const std::string code =
      "out=[]\nfor r in json.loads(r'''" + rules.dump() +
      "'''):\n  p=P.Sequence([P.Split(Regex(x),'isolated') for x in r])\n"
      "  out.append([[w for w,_ in p.pre_tokenize_str(t)] for t in texts])\nprint(json.dumps(out))";
  const json wanted = ask(code);
  ASSERT_EQ(wanted.size(), pre_rules().size());
  for (std::size_t c = 0; c < pre_rules().size(); ++c) {
    std::vector<PreStep> steps = pre_steps(pre_rules()[c]);
    for (std::size_t t = 0; t < texts().size(); ++t) {
      EXPECT_EQ(json(words_of(steps, texts()[t])), wanted[c][t])
          << pre_rules()[c].name << " of " << texts()[t];
    }
  }
}

TEST(PreTokenizer, NamesAreFoundAgain) {
  for (const PreRule& r : pre_rules()) {
    TokenizerSpec spec;
    spec.pre_tokenizer = pre_steps(r);
    spec.ignore_merges = r.ignore_merges;
    spec.clean_up_spaces = r.clean_spaces;
    const PreRule* found = find_pre_rule(find_pre_name(spec));
    ASSERT_NE(found, nullptr) << r.name;
    EXPECT_EQ(found->patterns, r.patterns) << r.name << " and " << found->name;
    EXPECT_EQ(found->ignore_merges, r.ignore_merges) << r.name;
  }
  // Another spelling of Llama 3's rule, as llama.cpp has it.
  TokenizerSpec spec;
  spec.ignore_merges = true;
  spec.pre_tokenizer = {regex_step(
      R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      PreStep::Merge::kIsolated)};
  EXPECT_EQ(find_pre_name(spec), "llama-bpe");
  spec.pre_tokenizer = {regex_step("[a-c]{3}", PreStep::Merge::kIsolated)};
  EXPECT_EQ(find_pre_name(spec), "");
}

TEST(Regex, HostileTextEndsInAnError) {
  ASSERT_OK_AND_ASSIGN(const Regex r, Regex::compile("(a+)+b|(a|aa)+c"));
  std::vector<Span> out;
  const Status s = r.find_all(std::string(60, 'a') + "!", out);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(Regex::compile("(").error().code, ErrorCode::kCorrupt);
}

TEST(Normalizer, StepsEqualHuggingFaces) {
  if (testing::oracle_python().empty()) GTEST_SKIP() << "no Python with the oracle packages";
  using K = NormStep::Kind;
  const auto step = [](K kind, std::string pattern = "", std::string content = "", bool regex = false) {
    NormStep s;
    s.kind = kind;
    s.pattern = std::move(pattern);
    s.content = std::move(content);
    s.is_regex = regex;
    s.left = s.right = true;
    return s;
  };
  const std::pair<const char*, std::vector<NormStep>> cases[] = {
      {"N.NFC()", {step(K::kNfc)}},
      {"N.NFD()", {step(K::kNfd)}},
      {"N.NFKC()", {step(K::kNfkc)}},
      {"N.NFKD()", {step(K::kNfkd)}},
      {"N.Lowercase()", {step(K::kLowercase)}},
      {"N.Prepend('_')", {step(K::kPrepend, "", "_")}},
      {"N.Replace(' ','_')", {step(K::kReplace, " ", "_")}},
      {R"py(N.Replace(Regex(r" {2,}"),"_"))py", {step(K::kReplace, " {2,}", "_", true)}},
      {R"py(N.Replace(Regex(r"\A +| +\z"),""))py", {step(K::kReplace, R"(\A +| +\z)", "", true)}},
      {"N.Strip()", {step(K::kStrip)}},
      {"N.Sequence([N.NFKD(),N.Lowercase(),N.Strip()])",
       {step(K::kNfkd), step(K::kLowercase), step(K::kStrip)}},
  };
  std::string code = "print(json.dumps([[n.normalize_str(t) for t in texts] for n in [";
  for (const auto& [python, steps] : cases) code += std::string(python) + ",";
  const json wanted = ask(code + "]]))");
  ASSERT_EQ(wanted.size(), std::size(cases));
  for (std::size_t c = 0; c < std::size(cases); ++c) {
    ASSERT_OK_AND_ASSIGN(const Normalizer n, Normalizer::create(cases[c].second));
    for (std::size_t t = 0; t < texts().size(); ++t) {
      ASSERT_OK_AND_ASSIGN(const std::string got, n.apply(texts()[t]));
      EXPECT_EQ(got, wanted[c][t].get<std::string>()) << cases[c].first;
    }
  }
}

TEST(CharsMap, DamagedBlobsEndInErrorsOrCopies) {
  EXPECT_FALSE(CharsMap::parse("abc").ok());
  EXPECT_FALSE(CharsMap::parse(std::string("\xff\xff\xff\x7f", 4)).ok());
  std::string blob("\x08\0\0\0", 4);
  blob += std::string("\xff\xff\xff\x7f\xff\xff\xff\x7f", 8);  // offsets far outside
  ASSERT_OK_AND_ASSIGN(const CharsMap m, CharsMap::parse(blob));
  std::string out;
  m.apply("héllo", out);
  EXPECT_EQ(out, "héllo");
}

TEST(Decoder, StepsEqualHuggingFaces) {
  if (testing::oracle_python().empty()) GTEST_SKIP() << "no Python with the oracle packages";
  const std::vector<std::string> tokens = {"▁▁He",   "llo",    "<0xE6>", "<0x88>", "<0x91>", "▁x",
                                           "<0xFF>", "<0x41>", " y ",    "ĠĠa",    "Ċ",      "é"};
  DecodeStep replace, bytes, fuse, strip, meta, level;
  replace.kind = DecodeStep::Kind::kReplace;
  replace.pattern = "▁";
  replace.content = " ";
  bytes.kind = DecodeStep::Kind::kByteFallback;
  fuse.kind = DecodeStep::Kind::kFuse;
  strip.kind = DecodeStep::Kind::kStrip;
  strip.content = " ";
  strip.start = 1;
  strip.stop = 2;
  meta.kind = DecodeStep::Kind::kMetaspace;
  meta.drop_first = true;
  level.kind = DecodeStep::Kind::kByteLevel;
  const std::pair<const char*, std::vector<DecodeStep>> cases[] = {
      {"D.Sequence([D.Replace('▁',' '),D.ByteFallback(),D.Fuse(),D.Strip(' ',1,0)])",
       {replace, bytes, fuse,
        [&] {
          DecodeStep s = strip;
          s.stop = 0;
          return s;
        }()}},
      {"D.Strip(' ',1,2)", {strip}},
      {"D.Metaspace()", {meta}},
      {"D.ByteLevel()", {level}},
      {"D.ByteFallback()", {bytes}}};
  std::string code = "tokens=" + json(tokens).dump() + "\nprint(json.dumps([d.decode(tokens) for d in [";
  for (const auto& [python, steps] : cases) code += std::string(python) + ",";
  const json wanted = ask(code + "]]))");
  ASSERT_EQ(wanted.size(), std::size(cases));
  for (std::size_t c = 0; c < std::size(cases); ++c) {
    ASSERT_OK_AND_ASSIGN(const DecoderChain d, DecoderChain::create(cases[c].second));
    ASSERT_OK_AND_ASSIGN(const std::string got, d.run(tokens));
    EXPECT_EQ(got, wanted[c].get<std::string>()) << cases[c].first;
  }
}

TEST(AddedMatcher, LongestFirstWithStripsAndWords) {
  AddedMatcher m;
  m.add("<a>", {.id = 1, .special = true});
  m.add("<a>b", {.id = 2});
  m.add("[M]", {.id = 3, .lstrip = true, .rstrip = true});
  m.add("cat", {.id = 4, .single_word = true});
  const auto ids = [&](std::string_view text, bool special) {
    std::vector<AddedMatcher::Segment> out;
    m.split(text, special, out);
    std::string s;
    for (const auto& x : out) {
      s += x.id < 0 ? "'" + std::string(text.substr(x.begin, x.end - x.begin)) + "'" : std::to_string(x.id);
    }
    return s;
  };
  EXPECT_EQ(ids("x<a>b<a>y", true), "'x'21'y'");
  EXPECT_EQ(ids("x<a>y<a>b", false), "'x<a>y'2");
  EXPECT_EQ(ids("p  [M] \n q", true), "'p'3'q'");
  EXPECT_EQ(ids("[M][M]  [M]", true), "333");
  EXPECT_EQ(ids("cat concat cats a cat", true), "4' concat cats a '4");
}

TEST(Unicode, InvalidBytesBecomeReplacementCharacters) {
  EXPECT_EQ(sanitize_utf8("a\xff\xe2\x82z\xf0\x9f\x98"), "a\ufffd\ufffdz\ufffd");
  EXPECT_EQ(sanitize_utf8("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");  // a surrogate
  EXPECT_EQ(sanitize_utf8("\xc0\xaf"), "\ufffd\ufffd");            // too long a form
  for (int b = 0; b < 256; ++b) {
    std::string bytes;
    ASSERT_TRUE(printable_to_bytes(byte_to_printable(static_cast<std::uint8_t>(b)), bytes));
    EXPECT_EQ(static_cast<unsigned char>(bytes[0]), b);
    EXPECT_EQ(parse_byte_token(byte_token(static_cast<std::uint8_t>(b))), b);
  }
}

}  // namespace
}  // namespace narrow::text

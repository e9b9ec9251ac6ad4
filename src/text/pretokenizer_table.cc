#include "text/pretokenizer_table.h"

#include <algorithm>

#include "text/tokenizer_pre.h"
#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

// Patterns as the models' own tokenizer.json files have them.
// clang-format off
constexpr std::string_view kGpt2 =
    R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kLlama3 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n)re"
    R"re(]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kQwen2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s)re"
    R"re(*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kQwen35 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N})re"
    R"re(]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kUfakzeka =
    R"re([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kJais2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n)re"
    R"re(]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16})re"
    R"re((?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})re";
constexpr std::string_view kTekken =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L})re"
    R"re(\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N})re"
    R"re(]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kGpt4o =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'r)re"
    R"re(e|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p)re"
    R"re({M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+()re"
    R"re(?!\S)|\s+)re";
constexpr std::string_view kYoutu2 =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'r)re"
    R"re(e|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p)re"
    R"re({M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S))re"
    R"re(|\s+)re";
constexpr std::string_view kYoutu1 =
    R"re([가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ)re"
    R"re(゠-ヿ]+)re";
constexpr std::string_view kKimi =
    R"re([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p)re"
    R"re({Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{L)re"
    R"re(m}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'l)re"
    R"re(l|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kDeepseekV3 =
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[)re"
    R"re(\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kSpark =
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[)re"
    R"re(\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)re";
constexpr std::string_view kDeepseekLetters =
    R"re(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯ)re"
    R"re(Ա-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅ)re"
    R"re(ὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ)re"
    R"re(ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤ)re"
    R"re(Ⳬ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏)re"
    R"re(𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)re";
constexpr std::string_view kDeepseekPunctuation =
    R"re(\s?[!-/:-~！-／：-～‘-‟　-。]+)re";
constexpr std::string_view kBloom =
    R"re( ?[^(\s|.,!?…。，、।۔،)]+)re";
constexpr std::string_view kBailing =
    R"re('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n)re"
    R"re(]|\s+(?!\S)|\s+)re";
constexpr std::string_view kSeedCoder =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s)re"
    R"re(*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kExaoneMoe =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| )re"
    R"re(?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)re";
constexpr std::string_view kMinicpm5 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s)re"
    R"re(*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kAfmoeAsian =
    R"re([一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿)re"
    R"re(가-힯ᄀ-ᇿ]+)re";
constexpr std::string_view kAfmoeDigits =
    R"re(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))re";
constexpr std::string_view kDefaultPunctuation =
    R"re([\p{P}\$\+<=>\^~\|]+)re";
constexpr std::string_view kFalconPunctuation =
    R"re([\p{P}\$\+<=>\^~\|`]+)re";
constexpr std::string_view kCjk =
    R"re([一-龥ࠀ-一가-퟿]+)re";
constexpr std::string_view kHanKana =
    R"re([一-龥぀-ゟ゠-ヿ]+)re";

// Of rules that split alike the name to write comes first.
const PreRule kRules[] = {
    // name, patterns, ignore_merges, add_bos, clean_spaces
    {"llama-bpe", {kLlama3}, true, true, true},
    {"llama3", {kLlama3}, true, true, true},
    {"llama-v3", {kLlama3}, true, true, true},
    {"falcon3", {kLlama3}, true, true, true},
    {"falcon-h1", {kLlama3}, true, true, true},
    {"pixtral", {kLlama3}, true, true, true},
    {"midm-2.0", {kLlama3}, true, true, true},
    {"lfm2", {kLlama3}, true, true, true},
    {"jina-v5-nano", {kLlama3}, true, true, true},
    {"smaug-bpe", {kLlama3}, false, false, true},
    {"dbrx", {kLlama3}, false, false, true},
    {"chatglm-bpe", {kLlama3}, false, false, true},
    {"glm4", {kLlama3}, true, false, true},
    {"glm5", {kLlama3}, true, false, true},
    {"qwen2", {kQwen2}, false, false, false},
    {"deepseek-r1-qwen", {kQwen2}, false, false, false},
    {"kormo", {kQwen2}, false, false, false},
    {"f2llmv2", {kQwen2}, false, false, false},
    {"hunyuan", {kQwen2}, false, false, false},
    {"solar-open", {kQwen2}, false, false, false},
    {"grok-2", {kQwen2}, false, false, false},
    {"stablelm2", {kQwen2}, false, false, true},
    {"megrez", {kQwen2}, false, false, true},
    {"qwen35", {kQwen35}, false, false, false},
    {"ufakzeka", {kUfakzeka}, false, false, false},
    {"gpt-2", {kGpt2}, false, false, true},
    {"phi-2", {kGpt2}, false, false, true},
    {"jina-es", {kGpt2}, false, false, true},
    {"jina-de", {kGpt2}, false, false, true},
    {"gigachat", {kGpt2}, false, false, true},
    {"jina-v2-es", {kGpt2}, false, false, true},
    {"jina-v2-de", {kGpt2}, false, false, true},
    {"a.x-4.0", {kGpt2}, false, false, true},
    {"mellum", {kGpt2}, false, false, true},
    {"modern-bert", {kGpt2}, false, false, true},
    {"mpt", {kGpt2}, false, false, true},
    {"olmo", {kGpt2}, false, false, true},
    {"jais", {kGpt2}, false, false, true},
    {"exaone4", {kGpt2}, false, false, true},
    {"jina-v1-en", {kGpt2}, false, false, true},
    {"jina-v2-code", {kGpt2}, false, false, true},
    {"roberta-bpe", {kGpt2}, false, false, true},
    {"trillion", {kGpt2}, false, false, false},
    {"granite-docling", {kGpt2}, false, false, false},
    {"smollm", {R"re(\p{N})re", kGpt2}, false, false, false},
    {"command-r", {R"re(\p{N})re", kGpt2}, false, false, false},
    {"starcoder", {R"re(\p{N})re", kGpt2}, false, false, true},
    {"refact", {R"re(\p{N})re", kGpt2}, false, false, true},
    {"codeshell", {R"re(\p{N})re", kGpt2}, false, false, true},
    {"exaone", {R"re(\p{N})re", kGpt2}, false, false, true},
    {"minerva-7b", {R"re(\p{N})re", kGpt2}, false, false, true},
    {"mellum2", {R"re(\p{N})re", kGpt2}, false, false, true},
    {"gpt-4o", {kGpt4o}, false, false, false},
    {"llama4", {kGpt4o}, false, false, false},
    {"kanana2", {kGpt4o}, false, false, false},
    {"talkie", {kGpt4o}, false, false, false},
    {"minimax-m2", {kGpt4o}, false, false, false},
    {"granite-embed-multi-97m", {kGpt4o}, true, false, false},
    {"tekken", {kTekken}, true, true, false},
    {"deepseek-llm", {R"re([\r\n])re", kDeepseekLetters, kDeepseekPunctuation, R"re(\s+$)re", kCjk, R"re(\p{N}+)re"}, false, false, false},
    {"deepseek-coder", {R"re([\r\n])re", R"re(\s?\p{L}+)re", R"re(\s?\p{P}+)re", kCjk, R"re(\p{N})re"}, false, false, false},
    {"deepseek-v3", {R"re(\p{N}{1,3})re", kHanKana, kDeepseekV3}, false, false, false},
    {"hunyuan-dense", {R"re(\p{N}{1,3})re", kHanKana, kDeepseekV3}, false, false, false},
    {"joyai-llm", {R"re(\p{N}{1,3})re", kHanKana, kDeepseekV3}, false, false, false},
    {"hy_v4", {R"re(\p{N}{1,3})re", kHanKana, kDeepseekV3}, false, false, false},
    {"spark2_5", {R"re(\p{N}{1,3})re", kHanKana, kSpark, R"re(\p{N})re"}, false, false, false},
    {"youtu", {kYoutu1, kYoutu2}, true, false, false},
    {"falcon", {kFalconPunctuation, kGpt2, R"re([0-9][0-9][0-9])re"}, false, false, true},
    {"poro-chat", {kBloom}, false, false, false},
    {"bloom", {kBloom}, false, false, true},
    {"gpt3-finnish", {kBloom}, false, false, true},
    {"viking", {kBloom, R"re(\p{N})re"}, false, false, false},
    {"chameleon", {R"re(<sentinel:[0-9]+>)re", R"re((IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z)re", R"re(([\t\n]|    |  ))re", R"re(\p{N})re", R"re([\p{P}!-/:-@\[-`{-~])re", kGpt2}, false, true, false},
    {"superbpe", {R"re(\p{N}+)re", R"re((?=(\d{3})+(?!\d)))re"}, false, false, false},
    {"bailingmoe", {kBailing}, false, false, false},
    {"bailingmoe2", {kBailing}, false, false, false},
    {"llada-moe", {kBailing}, false, false, false},
    {"seed-coder", {kSeedCoder}, false, false, false},
    {"exaone-moe", {kExaoneMoe}, false, false, true},
    {"kimi-k2", {kKimi}, false, false, false},
    {"tiny_aya", {R"re(\d{1,3}(?=(?:\d{3})*\b))re", kGpt4o}, false, false, false},
    {"cohere2moe", {R"re(\d{1,3}(?=(?:\d{3})*\b))re", kGpt4o}, false, false, false},
    {"afmoe", {kAfmoeDigits, kAfmoeAsian, kDeepseekV3}, false, false, false},
    {"laguna", {R"re([^\n]+|[\n]+)re", kQwen2}, false, false, false},
    {"minicpm5", {R"re(\p{N}{1,3})re", kMinicpm5}, true, false, true},
    {"jais-2", {kJais2}, false, false, true},
    {"default", {kDefaultPunctuation, kGpt2, R"re(\p{N}+)re", R"re([0-9][0-9][0-9])re"}, false, false, true},
};
// clang-format on

// One spelling of each thing that files write in several ways.
std::string canonical(std::string_view pattern) {
  std::string s(pattern);
  replace_all(s, "\r", "\\r");
  replace_all(s, "\n", "\\n");
  replace_all(s, "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)");
  replace_all(s, "(?i:[sdmt]|ll|ve|re)", "(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])");
  for (const std::string_view possessive : {"?+", "++", "*+"}) {
    replace_all(s, possessive, possessive.substr(0, 1));
  }
  replace_all(s, "{1}", "");
  // What no alternative takes stays as a piece of its own, so a last alternative for lone spaces changes
  // nothing.
  const std::string_view last = R"(|\s+(?!\S)|\s+)", shorter = R"(|\s+(?!\S))";
  if (s.ends_with(last)) s.resize(s.size() - last.size() + shorter.size());
  return s;
}

// The isolating patterns that the steps amount to; false when a step is of another nature.
bool patterns_of(const std::vector<PreStep>& steps, std::vector<std::string>& out) {
  for (const PreStep& s : steps) {
    switch (s.kind) {
      case PreStep::Kind::kRegexSplit:
        if (s.invert || s.removed || s.merge != PreStep::Merge::kIsolated) return false;
        out.push_back(canonical(s.pattern));
        break;
      case PreStep::Kind::kByteLevel:
        if (s.add_prefix_space) return false;
        if (s.use_regex) out.push_back(canonical(kGpt2Pattern));
        break;
      case PreStep::Kind::kDigits:
        out.push_back(s.individual ? R"(\p{N})" : R"(\p{N}+)");
        break;
      default:
        return false;
    }
  }
  return true;
}

// Letters with and without case, contractions, marks, numbers of all lengths, spaces of all kinds, scripts.
constexpr std::string_view kHardText =
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \nI've we'LL He'S IT'S 'tis o'clock'd 'RE''s  x='a'; "
    "f(x)/y//z/\n/\n"
    "camelCase XMLHttpRequest ПРИвет приВЕТ Ǆǅǆ naïve na\u0308ive \u0301x हिन्दी ไทย ქართული 1 22 333 4444 "
    "55555 "
    "666666 7777777 88888888 999999999 1,234.5 3.3 3..3 3...3 x1y22z333 ²³¼ Ⅷ ٣٤٥ १२३४ "
    "我想在apple工作1314151天～。"
    "ひらがなカタカナ한국어 ㄅㄆ ！？…“”‘’—：；，、 ()[]{}<>+-*/=^~|`@#$%&_\\ ```````\"\"\"\"...!!!???  "
    "\r\n\r\n \r "
    "🚀 😶\u200d🌫️ ✅🦙🦙 a\u00a0b\u3000c\u2028d\u0085e  IMGIMGABZ <sentinel:12> foo_bar "
    "__init__ "
    "a.b.c http://x.y/z?q=1 "
    "tab\there\n\n    indented  twice  end   ";

bool same_words(const std::vector<PreStep>& a, const std::vector<PreStep>& b) {
  const auto words = [](const std::vector<PreStep>& steps, std::string& text, std::vector<Span>& out) {
    const auto p = PreTokenizer::create(steps);
    return p.ok() && p->split(text, true, out).ok();
  };
  std::string ta(kHardText), tb(kHardText);
  std::vector<Span> wa, wb;
  if (!words(a, ta, wa) || !words(b, tb, wb) || ta != tb) return false;
  return std::equal(wa.begin(), wa.end(), wb.begin(), wb.end(),
                    [](const Span& x, const Span& y) { return x.begin == y.begin && x.end == y.end; });
}

}  // namespace

std::span<const PreRule> pre_rules() { return kRules; }

const PreRule* find_pre_rule(std::string_view name) {
  for (const PreRule& r : kRules) {
    if (r.name == name) return &r;
  }
  return nullptr;
}

std::vector<PreStep> pre_steps(const PreRule& rule) {
  std::vector<PreStep> steps;
  for (const std::string_view p : rule.patterns) {
    PreStep s;
    s.kind = PreStep::Kind::kRegexSplit;
    s.pattern = p;
    steps.push_back(std::move(s));
  }
  PreStep bytes;
  bytes.kind = PreStep::Kind::kByteLevel;
  bytes.use_regex = false;
  steps.push_back(std::move(bytes));
  return steps;
}

std::string find_pre_name(const TokenizerSpec& spec) {
  std::vector<std::string> wanted;
  const bool comparable = patterns_of(spec.pre_tokenizer, wanted);
  const auto fits = [&](const PreRule& r) { return r.ignore_merges == spec.ignore_merges; };
  // Among equals the one whose clean-up matches too, if there is one.
  for (const bool exact_clean : {true, false}) {
    for (const PreRule& r : kRules) {
      if (!comparable || !fits(r) || (exact_clean && r.clean_spaces != spec.clean_up_spaces)) continue;
      std::vector<std::string> have;
      for (const std::string_view p : r.patterns) have.push_back(canonical(p));
      if (have == wanted) return std::string(r.name);
    }
  }
  for (const PreRule& r : kRules) {
    if (fits(r) && same_words(spec.pre_tokenizer, pre_steps(r))) return std::string(r.name);
  }
  return {};
}

}  // namespace narrow::text

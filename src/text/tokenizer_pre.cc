#include "text/tokenizer_pre.h"

#include <algorithm>
#include <functional>

#include "text/tokenizer_unicode.h"

namespace narrow::text {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Rust's \w, which Hugging Face's Whitespace step uses: alphabetic, marks, decimal numbers, connectors,
// joiners.
constexpr const char* kWordSet =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149})";

std::string pattern_of(const PreStep& s) {
  using Kind = PreStep::Kind;
  switch (s.kind) {
    case Kind::kRegexSplit:
      return s.pattern;
    case Kind::kByteLevel:
      return s.use_regex ? kGpt2Pattern : "";
    case Kind::kDigits:
      return R"(\p{N})";
    case Kind::kPunctuation:
      return R"([\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e\p{P}])";
    case Kind::kWhitespace:
      return "[" + std::string(kWordSet) + "]+|[^" + kWordSet + R"(\s]+)";
    case Kind::kWhitespaceSplit:
      return R"(\s)";
    case Kind::kMetaspace:
      return s.split ? std::string(kMetaChar) : "";
  }
  return {};
}

// Rewrites the text word by word, keeping the words' borders.
void rewrite(std::string& text, std::vector<Span>& words,
             const std::function<void(std::string_view word, std::string& out)>& f) {
  std::string out;
  out.reserve(text.size() + text.size() / 8 + 8);
  for (Span& w : words) {
    const std::size_t begin = out.size();
    f(std::string_view(text).substr(w.begin, w.end - w.begin), out);
    w = {begin, out.size()};
  }
  text = std::move(out);
}

}  // namespace

Result<PreTokenizer> PreTokenizer::create(const std::vector<PreStep>& steps) {
  PreTokenizer p;
  for (const PreStep& spec : steps) {
    Step step{spec, nullptr};
    // The steps that are regular expressions in disguise.
    if (spec.kind == PreStep::Kind::kDigits) {
      step.spec.merge = spec.individual ? PreStep::Merge::kIsolated : PreStep::Merge::kContiguous;
    } else if (spec.kind == PreStep::Kind::kWhitespace) {
      step.spec.invert = step.spec.removed = true;
    } else if (spec.kind == PreStep::Kind::kWhitespaceSplit) {
      step.spec.removed = true;
    } else if (spec.kind == PreStep::Kind::kMetaspace) {
      step.spec.merge = PreStep::Merge::kMergedWithNext;
    }
    const std::string pattern = pattern_of(spec);
    if (!pattern.empty()) {
      NARROW_ASSIGN(Regex r, Regex::compile(pattern));
      step.regex = std::make_shared<const Regex>(std::move(r));
    }
    p.steps_.push_back(std::move(step));
  }
  return p;
}

Status PreTokenizer::split_by_regex(const Step& step, std::string_view text, std::vector<Span>& words) {
  struct Part {
    Span span;
    bool match;
  };
  std::vector<Span> out, matches;
  std::vector<Part> parts;
  out.reserve(words.size() + text.size() / 4);
  const auto put = [&](Span s) {
    if (s.begin < s.end) out.push_back(s);
  };
  for (const Span& word : words) {
    matches.clear();
    NARROW_TRY(step.regex->find_all(text.substr(word.begin, word.end - word.begin), matches));
    parts.clear();
    std::size_t at = word.begin;
    for (const Span& m : matches) {
      const Span s{word.begin + m.begin, word.begin + m.end};
      if (at != s.begin) parts.push_back({{at, s.begin}, step.spec.invert});
      parts.push_back({s, !step.spec.invert});
      at = s.end;
    }
    if (at != word.end) parts.push_back({{at, word.end}, step.spec.invert});

    if (step.spec.removed) {
      for (const Part& p : parts) {
        if (!p.match) put(p.span);
      }
      continue;
    }
    switch (step.spec.merge) {
      case PreStep::Merge::kIsolated:
        for (const Part& p : parts) put(p.span);
        break;
      case PreStep::Merge::kContiguous:
        for (std::size_t i = 0; i < parts.size();) {
          std::size_t j = i + 1;
          while (j < parts.size() && parts[j].match == parts[i].match) ++j;
          put({parts[i].span.begin, parts[j - 1].span.end});
          i = j;
        }
        break;
      case PreStep::Merge::kMergedWithPrevious:
        for (std::size_t i = 0; i < parts.size();) {
          const bool takes_next = !parts[i].match && i + 1 < parts.size() && parts[i + 1].match;
          put({parts[i].span.begin, parts[i + (takes_next ? 1 : 0)].span.end});
          i += takes_next ? 2 : 1;
        }
        break;
      case PreStep::Merge::kMergedWithNext:
        for (std::size_t i = 0; i < parts.size();) {
          const bool takes_next = parts[i].match && i + 1 < parts.size() && !parts[i + 1].match;
          put({parts[i].span.begin, parts[i + (takes_next ? 1 : 0)].span.end});
          i += takes_next ? 2 : 1;
        }
        break;
    }
  }
  words = std::move(out);
  return {};
}

Status PreTokenizer::split(std::string& text, bool at_start, std::vector<Span>& words) const {
  words.clear();
  if (text.empty()) return {};
  words.push_back({0, text.size()});
  bool printable = false;  // bytes already turned into printable characters
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    if (step.spec.kind == PreStep::Kind::kByteLevel && step.spec.add_prefix_space) {
      rewrite(text, words, [](std::string_view w, std::string& out) {
        if (w.empty() || w[0] != ' ') out += ' ';
        out += w;
      });
    }
    if (step.spec.kind == PreStep::Kind::kMetaspace) {
      bool first = at_start && !words.empty() && words.front().begin == 0;
      rewrite(text, words, [&](std::string_view w, std::string& out) {
        std::string word(w);
        replace_all(word, " ", kMetaChar);
        const bool wanted =
            step.spec.prepend_scheme == "always" || (step.spec.prepend_scheme == "first" && first);
        if (wanted && !word.starts_with(kMetaChar)) out += kMetaChar;
        out += word;
        first = false;
      });
    }
    if (step.regex) NARROW_TRY(split_by_regex(step, text, words));
    // Later steps see printable characters, as they do in Hugging Face's library; the model wants bytes.
    if (step.spec.kind == PreStep::Kind::kByteLevel && i + 1 < steps_.size() && !printable) {
      rewrite(text, words, [](std::string_view w, std::string& out) { out += bytes_to_printable(w); });
      printable = true;
    }
  }
  if (printable) {
    rewrite(text, words, [](std::string_view w, std::string& out) {
      if (!printable_to_bytes(w, out)) out += w;
    });
  }
  return {};
}

}  // namespace narrow::text

// Regular expressions as tokenizer files write them (Oniguruma and Rust syntax), run by PCRE2 with JIT.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace narrow::text {

struct Span {
  std::size_t begin = 0, end = 0;  // bytes, end excluded
};

class Regex {
 public:
  // kCorrupt names the pattern and the place that does not compile.
  static Result<Regex> compile(std::string_view pattern);

  // All matches in `subject` (well-formed UTF-8), left to right, not overlapping; an empty match directly
  // after another match is left out. Limited in steps and memory: kCorrupt when a text drives the pattern
  // past them.
  Status find_all(std::string_view subject, std::vector<Span>& out) const;

  const std::string& pattern() const { return pattern_; }
  static std::string escape(std::string_view literal);

 private:
  std::string pattern_;
  std::shared_ptr<void> code_;
};

// The same expression in PCRE2's dialect: \s is exactly White_Space (PCRE2's also holds U+180E), scripts do
// not mean script extensions, and set intersections [A&&[^B]] become lookaheads.
std::string pcre_dialect(std::string_view pattern);

}  // namespace narrow::text

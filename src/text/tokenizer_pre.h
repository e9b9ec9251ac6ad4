// Splits normalized text into the words that the model sees one at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_spec.h"

namespace narrow::text {

// GPT-2's splitting pattern, which the ByteLevel step uses.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  static Result<PreTokenizer> create(const std::vector<PreStep>& steps);

  // Splits `text` (well-formed) and may rewrite it; `words` index into the rewritten text. `at_start`: this
  // text opens the input (for Metaspace's "first"). After a ByteLevel step the words are raw bytes.
  Status split(std::string& text, bool at_start, std::vector<Span>& words) const;

 private:
  struct Step {
    PreStep spec;
    std::shared_ptr<const Regex> regex;
  };
  static Status split_by_regex(const Step& step, std::string_view text, std::vector<Span>& words);
  std::vector<Step> steps_;
};

}  // namespace narrow::text

// The text changes that a tokenizer makes before splitting.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_spec.h"

namespace narrow::text {

// SentencePiece's precompiled_charsmap: a darts-clone double array over UTF-8 prefixes, then the
// replacements.
class CharsMap {
 public:
  // Layout: u32 size of the array in bytes, the array of u32 units, NUL-terminated replacement texts.
  static Result<CharsMap> parse(std::string_view blob);
  // Replaces the longest known prefix at each place, else copies one character. Units are bounds-checked.
  void apply(std::string_view text, std::string& out) const;

 private:
  // Longest prefix of `text` in the map: its length (0: none) and the offset of its replacement.
  std::size_t longest_prefix(std::string_view text, std::size_t& replacement) const;
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

class Normalizer {
 public:
  static Result<Normalizer> create(const std::vector<NormStep>& steps);
  bool empty() const { return steps_.empty(); }
  // `text` is well-formed UTF-8.
  Result<std::string> apply(std::string_view text) const;

 private:
  struct Step {
    NormStep spec;
    std::shared_ptr<const Regex> regex;
    std::shared_ptr<const CharsMap> charsmap;
  };
  std::vector<Step> steps_;
};

}  // namespace narrow::text

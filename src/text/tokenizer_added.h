// Finds added tokens in text: leftmost, then longest.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer_spec.h"

namespace narrow::text {

class AddedMatcher {
 public:
  // `text` is what to look for; `spec` says how and which id results.
  void add(std::string_view text, const AddedToken& spec);
  bool empty() const { return tokens_.empty(); }

  struct Segment {
    std::size_t begin = 0, end = 0;  // of the text; a token's own segment includes the spaces it strips
    std::int32_t id = -1;            // -1: plain text
  };
  // Covers all of `text`. Special tokens are left as plain text unless `parse_special`.
  void split(std::string_view text, bool parse_special, std::vector<Segment>& out) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;  // sorted by byte
    std::int32_t token = -1;                                        // index into tokens_
  };
  std::uint32_t child(std::uint32_t node, unsigned char c) const;  // 0: none
  std::vector<Node> nodes_{1};
  std::array<bool, 256> first_{};
  std::vector<AddedToken> tokens_;
};

}  // namespace narrow::text

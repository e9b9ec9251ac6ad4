#include "text/tokenizer_added.h"

#include <algorithm>

#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

std::size_t previous_char(std::string_view s, std::size_t i) {
  do {
    --i;
  } while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xc0) == 0x80);
  return i;
}

}  // namespace

std::uint32_t AddedMatcher::child(std::uint32_t node, unsigned char c) const {
  const auto& list = nodes_[node].children;
  const auto it = std::lower_bound(list.begin(), list.end(), c,
                                   [](const auto& entry, unsigned char key) { return entry.first < key; });
  return it != list.end() && it->first == c ? it->second : 0;
}

void AddedMatcher::add(std::string_view text, const AddedToken& spec) {
  if (text.empty()) return;
  std::uint32_t node = 0;
  for (const char ch : text) {
    const auto c = static_cast<unsigned char>(ch);
    std::uint32_t next = child(node, c);
    if (next == 0) {
      next = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
      auto& list = nodes_[node].children;
      list.insert(std::upper_bound(list.begin(), list.end(), std::pair<unsigned char, std::uint32_t>{c, 0}),
                  {c, next});
    }
    node = next;
  }
  first_[static_cast<unsigned char>(text[0])] = true;
  nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(spec);
}

void AddedMatcher::split(std::string_view text, bool parse_special, std::vector<Segment>& out) const {
  std::size_t done = 0;  // end of the last segment
  for (std::size_t i = 0; i < text.size();) {
    if (!first_[static_cast<unsigned char>(text[i])]) {
      ++i;
      continue;
    }
    std::int32_t found = -1;
    std::size_t found_end = 0;
    std::uint32_t node = 0;
    for (std::size_t j = i; j < text.size(); ++j) {
      node = child(node, static_cast<unsigned char>(text[j]));
      if (node == 0) break;
      const std::int32_t t = nodes_[node].token;
      if (t >= 0 && (parse_special || !tokens_[static_cast<std::size_t>(t)].special)) {
        found = t;
        found_end = j + 1;
      }
    }
    if (found < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(found)];
    if (token.single_word) {
      const bool word_before = i > 0 && is_word_char(decode_utf8_at(text, previous_char(text, i)));
      const bool word_after = found_end < text.size() && is_word_char(decode_utf8_at(text, found_end));
      if (word_before || word_after) {
        i = found_end;
        continue;
      }
    }
    std::size_t begin = i, end = found_end;
    while (token.lstrip && begin > done) {
      const std::size_t p = previous_char(text, begin);
      if (p < done || !is_white_space(decode_utf8_at(text, p))) break;
      begin = p;
    }
    while (token.rstrip && end < text.size() && is_white_space(decode_utf8_at(text, end))) {
      end += utf8_lead_length(static_cast<unsigned char>(text[end]));
    }
    if (begin > done) out.push_back({done, begin, -1});
    out.push_back({begin, end, token.id});
    done = i = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

}  // namespace narrow::text

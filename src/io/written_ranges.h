// Which bytes of something were written, in any order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace narrow::io {

class WrittenRanges {
 public:
  void add(std::uint64_t begin, std::uint64_t end) {
    if (begin == end) return;
    auto it = pieces_.upper_bound(begin);
    if (it != pieces_.begin() && std::prev(it)->second >= begin) --it;
    while (it != pieces_.end() && it->first <= end) {
      begin = std::min(begin, it->first);
      end = std::max(end, it->second);
      it = pieces_.erase(it);
    }
    pieces_.emplace(begin, end);
  }
  std::uint64_t bytes() const {
    std::uint64_t n = 0;
    for (const auto& [begin, end] : pieces_) n += end - begin;
    return n;
  }

 private:
  std::map<std::uint64_t, std::uint64_t> pieces_;  // begin -> end, that neither touch nor overlap
};

}  // namespace narrow::io

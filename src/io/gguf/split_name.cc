#include "io/gguf/split_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>

namespace narrow::io::gguf {
namespace {

std::optional<int> five_digits(std::string_view s) {
  int n = 0;
  for (const char c : s) {
    if (!std::isdigit(static_cast<unsigned char>(c))) return std::nullopt;
    n = n * 10 + (c - '0');
  }
  return n;
}

}  // namespace

std::optional<SplitName> parse_split_name(const std::filesystem::path& path) {
  constexpr std::string_view kShape = "-00000-of-00000.gguf";
  const std::string name = path.filename().string();
  if (name.size() <= kShape.size()) return std::nullopt;
  const std::string_view tail = std::string_view(name).substr(name.size() - kShape.size());
  const auto no = five_digits(tail.substr(1, 5));
  const auto count = five_digits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf") return std::nullopt;
  if (!no || !count || *no < 1 || *no > *count) return std::nullopt;
  return SplitName{path.parent_path() / name.substr(0, name.size() - kShape.size()), *no - 1, *count};
}

std::filesystem::path split_part_path(const std::filesystem::path& prefix, int no, int count) {
  return prefix.string() + fmt::format("-{:05d}-of-{:05d}.gguf", no + 1, count);
}

}  // namespace narrow::io::gguf

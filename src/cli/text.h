// Numbers and tables for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/result.h"

namespace narrow::cli {

std::string bytes_text(std::uint64_t bytes);  // "109.3 MB", "1.23 GB" (powers of ten)

// "2G", "500M", "90.5MB", "64k" (powers of ten), "2GiB" (powers of two), "1000000"; kInvalidArgument names
// `option`.
Result<std::uint64_t> parse_bytes(std::string_view option, std::string_view text);

std::string shape_text(const std::vector<std::int64_t>& shape);  // "49152 x 576"; "scalar"

// Columns as wide as their widest cell; numbers (columns whose header starts with '>') right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> headers);
  void add(std::vector<std::string> cells);
  std::string plain() const;
  std::string markdown() const;

 private:
  std::vector<std::string> headers_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace narrow::cli

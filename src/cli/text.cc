#include "cli/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace narrow::cli {

std::string bytes_text(std::uint64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (bytes >= 10'000'000'000u) return fmt::format("{:.1f} GB", b / 1e9);
  if (bytes >= 1'000'000'000u) return fmt::format("{:.2f} GB", b / 1e9);
  if (bytes >= 1'000'000u) return fmt::format("{:.1f} MB", b / 1e6);
  if (bytes >= 1'000u) return fmt::format("{:.1f} kB", b / 1e3);
  return fmt::format("{} B", bytes);
}

Result<std::uint64_t> parse_bytes(std::string_view option, std::string_view text) {
  const Error bad{ErrorCode::kInvalidArgument,
                  fmt::format("{} '{}': not a size; write e.g. 2G, 500M or 2GiB", option, text)};
  std::uint64_t n = 0;
  double fraction = 0;
  const char* end = text.data() + text.size();
  auto r = std::from_chars(text.data(), end, n);
  if (r.ec == std::errc() && r.ptr != end && *r.ptr == '.') {
    r = std::from_chars(r.ptr, end, fraction, std::chars_format::fixed);
  }
  if (r.ec != std::errc() || (n == 0 && fraction == 0)) return bad;
  std::string unit(r.ptr, end);
  for (char& c : unit) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  struct Unit {
    std::string_view name;
    std::uint64_t factor;
  };
  constexpr Unit kUnits[] = {
      {"", 1},           {"b", 1},          {"k", 1'000},         {"kb", 1'000},
      {"m", 1'000'000},  {"mb", 1'000'000}, {"g", 1'000'000'000}, {"gb", 1'000'000'000},
      {"kib", 1u << 10}, {"mib", 1u << 20}, {"gib", 1u << 30},
  };
  const auto u =
      std::find_if(std::begin(kUnits), std::end(kUnits), [&](const Unit& x) { return x.name == unit; });
  if (u == std::end(kUnits) || n > std::numeric_limits<std::uint64_t>::max() / u->factor) return bad;
  return n * u->factor + static_cast<std::uint64_t>(fraction * static_cast<double>(u->factor));
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return shape.empty() ? "scalar" : fmt::format("{}", fmt::join(shape, " x "));
}

Table::Table(std::vector<std::string> headers) : headers_(std::move(headers)) {
  for (std::string& h : headers_) {
    right_.push_back(h.starts_with('>'));
    if (right_.back()) h.erase(0, 1);
  }
}

void Table::add(std::vector<std::string> cells) {
  cells.resize(headers_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::plain() const {
  std::vector<std::size_t> widths;
  for (const std::string& h : headers_) widths.push_back(h.size());
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      if (c > 0) text += "  ";
      text +=
          right_[c] ? fmt::format("{:>{}}", cells[c], widths[c]) : fmt::format("{:<{}}", cells[c], widths[c]);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  line(headers_);
  for (const auto& row : rows_) line(row);
  return out;
}

std::string Table::markdown() const {
  std::string out = fmt::format("| {} |\n|", fmt::join(headers_, " | "));
  for (const bool right : right_) out += right ? "---:|" : "---|";
  out += "\n";
  for (const auto& row : rows_) out += fmt::format("| {} |\n", fmt::join(row, " | "));
  return out;
}

}  // namespace narrow::cli

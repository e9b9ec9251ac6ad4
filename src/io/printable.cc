#include "io/printable.h"

#include <fmt/format.h>

#include <iterator>

namespace narrow::io {

std::string printable(std::string_view name, std::size_t max_bytes) {
  std::string out;
  for (const char c : name.substr(0, max_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (name.size() > max_bytes) out += "...";
  return out;
}

}  // namespace narrow::io

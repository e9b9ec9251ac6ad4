// Names out of files, made safe to show.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace narrow::io {

// At most max_bytes of it, control and non-ASCII bytes as \xNN: error messages stay one readable line
// whatever a damaged file holds.
std::string printable(std::string_view name, std::size_t max_bytes = 80);

}  // namespace narrow::io

#pragma once

#include <string_view>

namespace narrow::io {

bool valid_utf8(std::string_view s);

}  // namespace narrow::io

// Base64 (RFC 4648), as tokenizer.json stores the precompiled_charsmap.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace narrow::io {

Result<std::string> base64_decode(std::string_view text);
std::string base64_encode(std::string_view bytes);

}  // namespace narrow::io

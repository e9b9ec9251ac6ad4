#include "io/utf8.h"

#include <utf8proc.h>

namespace narrow::io {

bool valid_utf8(std::string_view s) {
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(s.data());
  auto left = static_cast<utf8proc_ssize_t>(s.size());
  while (left > 0) {
    utf8proc_int32_t codepoint = 0;
    const utf8proc_ssize_t n = utf8proc_iterate(p, left, &codepoint);
    if (n <= 0) return false;
    p += n;
    left -= n;
  }
  return true;
}

}  // namespace narrow::io

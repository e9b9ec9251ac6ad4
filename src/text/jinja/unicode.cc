#include "text/jinja/unicode.h"

#include <utf8proc.h>

namespace narrow::text::jinja {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

// Simple case mapping by code point, and the one full mapping that plain text meets.
void append_upper(std::string& out, char32_t c) {
  if (c == 0xDF) {
    out += "SS";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}
void append_lower(std::string& out, char32_t c) {
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}
void append_title(std::string& out, char32_t c) {
  if (c == 0xDF) {
    out += "Ss";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

}  // namespace

char32_t next_code_point(std::string_view s, std::size_t& pos) {
  const unsigned char first = static_cast<unsigned char>(s[pos]);
  if (first < 0x80) {
    ++pos;
    return first;
  }
  utf8proc_int32_t c = -1;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(s.data() + pos),
                                  static_cast<utf8proc_ssize_t>(s.size() - pos), &c);
  if (n <= 0) {
    ++pos;
    return kReplacement;
  }
  pos += static_cast<std::size_t>(n);
  return static_cast<char32_t>(c);
}

void append_utf8(std::string& out, char32_t c) {
  if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = kReplacement;
  utf8proc_uint8_t buffer[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<std::size_t>(n));
}

std::size_t count_code_points(std::string_view s) {
  std::size_t n = 0;
  for (std::size_t pos = 0; pos < s.size(); ++n) next_code_point(s, pos);
  return n;
}

std::size_t byte_offset(std::string_view s, std::size_t index) {
  std::size_t pos = 0;
  for (std::size_t i = 0; i < index && pos < s.size(); ++i) next_code_point(s, pos);
  return pos;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_alpha(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_numeric(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  const auto k = category(c);
  return k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_CS &&
         k != UTF8PROC_CATEGORY_CO && k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_ZL &&
         k != UTF8PROC_CATEGORY_ZP && k != UTF8PROC_CATEGORY_ZS;
}

bool is_word(char32_t c) { return c == '_' || is_alpha(c) || is_numeric(c); }

std::string to_upper(std::string_view s) {
  std::string out;
  for (std::size_t pos = 0; pos < s.size();) append_upper(out, next_code_point(s, pos));
  return out;
}

std::string to_lower(std::string_view s) {
  std::string out;
  bool after_letter = false;
  for (std::size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (c == 0x3A3 && after_letter) {
      // Greek capital sigma at a word's end has a small form of its own.
      std::size_t peek = pos;
      const bool last = pos >= s.size() || !is_alpha(next_code_point(s, peek));
      append_utf8(out, last ? 0x3C2 : 0x3C3);
    } else {
      append_lower(out, c);
    }
    after_letter = is_alpha(c);
  }
  return out;
}

std::string to_title(std::string_view s) {
  std::string out;
  bool in_word = false;
  for (std::size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (in_word) {
      append_lower(out, c);
    } else {
      append_title(out, c);
    }
    const auto k = category(c);
    in_word = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
  }
  return out;
}

std::string to_capitalized(std::string_view s) {
  std::string out;
  if (s.empty()) return out;
  std::size_t pos = 0;
  append_title(out, next_code_point(s, pos));
  return out + to_lower(s.substr(pos));
}

std::string swap_case(std::string_view s) {
  std::string out;
  for (std::size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (is_upper(c)) {
      append_lower(out, c);
    } else {
      append_upper(out, c);
    }
  }
  return out;
}

std::string_view strip(std::string_view s, const std::string_view* chars, bool left, bool right) {
  const auto drops = [&](char32_t c) {
    if (chars == nullptr) return is_space(c);
    for (std::size_t pos = 0; pos < chars->size();) {
      if (next_code_point(*chars, pos) == c) return true;
    }
    return false;
  };
  while (left && !s.empty()) {
    std::size_t pos = 0;
    if (!drops(next_code_point(s, pos))) break;
    s.remove_prefix(pos);
  }
  while (right && !s.empty()) {
    std::size_t start = s.size() - 1;  // back to the start of the last character
    while (start > 0 && s.size() - start < 4 && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80)
      --start;
    std::size_t pos = start;
    char32_t c = next_code_point(s, pos);
    if (pos != s.size()) {  // stray continuation byte
      start = s.size() - 1;
      c = kReplacement;
    }
    if (!drops(c)) break;
    s = s.substr(0, start);
  }
  return s;
}

}  // namespace narrow::text::jinja

// Strings as Python sees them: UTF-8 bytes addressed by code point, with Python's character classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace narrow::text::jinja {

// The code point at byte `pos`, which moves past it. A byte that starts no valid sequence counts as one
// character, U+FFFD.
char32_t next_code_point(std::string_view s, std::size_t& pos);
void append_utf8(std::string& out, char32_t c);  // surrogates and values out of range become U+FFFD
std::size_t count_code_points(std::string_view s);
// Byte offset of the code point with this index; s.size() past the end.
std::size_t byte_offset(std::string_view s, std::size_t index);

bool is_space(char32_t c);    // str.isspace
bool is_alpha(char32_t c);    // str.isalpha
bool is_decimal(char32_t c);  // str.isdecimal
bool is_numeric(char32_t c);  // str.isnumeric
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_printable(char32_t c);  // shown by repr() as itself
bool is_word(char32_t c);       // \w of Python's re

std::string to_upper(std::string_view s);
std::string to_lower(std::string_view s);
std::string to_title(std::string_view s);  // str.title: a new word after each uncased character
std::string to_capitalized(std::string_view s);
std::string swap_case(std::string_view s);

// str.strip: `chars` is a set of code points, white space when null.
std::string_view strip(std::string_view s, const std::string_view* chars, bool left, bool right);

}  // namespace narrow::text::jinja

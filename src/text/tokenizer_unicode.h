// UTF-8 and the few Unicode facts that tokenizers need, plus GPT-2's printable characters for bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace narrow::text {

inline constexpr std::string_view kReplacementChar = "\xef\xbf\xbd";  // U+FFFD
inline constexpr std::string_view kMetaChar = "\xe2\x96\x81";         // U+2581, SentencePiece's space

// Bytes of the well-formed sequence at s[i], or 0. `bad` then holds the bytes that one U+FFFD stands for
// (the maximal part of a sequence, Unicode 3.9), and `open` whether they may still become valid with more
// bytes.
std::size_t utf8_length(std::string_view s, std::size_t i, std::size_t* bad = nullptr, bool* open = nullptr);
bool is_valid_utf8(std::string_view s);
std::string sanitize_utf8(std::string_view s);  // invalid parts to U+FFFD

// Length that the first byte of a well-formed sequence announces.
inline std::size_t utf8_lead_length(unsigned char c) {
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}
char32_t decode_utf8_at(std::string_view s, std::size_t i);  // s must be well-formed
void append_utf8(char32_t c, std::string& out);

bool is_white_space(char32_t c);  // the property White_Space
bool is_word_char(char32_t c);    // \w: letters, marks, numbers, connectors
void replace_all(std::string& s, std::string_view from, std::string_view to);

// GPT-2's byte <-> printable character table: bytes that print as themselves stay, others move to U+0100...
std::string_view byte_to_printable(std::uint8_t b);
int printable_to_byte(char32_t c);  // -1: not in the table
std::string bytes_to_printable(std::string_view bytes);
// False when a character is not in the table; `out` is then unchanged.
bool printable_to_bytes(std::string_view text, std::string& out);

// "<0xAB>" as byte 0xAB; -1 for other text.
int parse_byte_token(std::string_view token);
std::string byte_token(std::uint8_t b);

}  // namespace narrow::text

#include "text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/unicode.h"

namespace narrow::text::jinja {
namespace {

constexpr std::size_t kMaxTokens = 1'000'000;

std::string normalize_newlines(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\r') {
      out += '\n';
      if (i + 1 < s.size() && s[i + 1] == '\n') ++i;
    } else {
      out += s[i];
    }
  }
  return out;
}

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
    for (std::size_t i = 0; i < source_.size(); ++i) {
      if (source_[i] == '\n') line_starts_.push_back(i + 1);
    }
  }

  std::vector<Token> run() {
    while (pos_ < source_.size()) root();
    add(TokenKind::kEnd, {}, source_.size());
    return std::move(tokens_);
  }

 private:
  char at(std::size_t i) const { return i < source_.size() ? source_[i] : '\0'; }
  bool starts(std::size_t i, std::string_view what) const {
    return source_.compare(std::min(i, source_.size()), what.size(), what) == 0;
  }

  void locate(std::size_t pos, int& line, int& column) const {
    const auto it = std::upper_bound(line_starts_.begin(), line_starts_.end(), pos) - 1;
    // Characters are counted on from the last place asked for: a long line stays linear.
    if (located_ < *it || located_ > pos) {
      located_ = *it;
      located_column_ = 1;
    }
    located_column_ += count_code_points(std::string_view(source_).substr(located_, pos - located_));
    located_ = pos;
    line = static_cast<int>(it - line_starts_.begin()) + 1;
    column = static_cast<int>(located_column_);
  }

  [[noreturn]] void error(std::string message, std::size_t pos) const {
    TemplateError e{std::move(message)};
    locate(std::min(pos, source_.size()), e.line, e.column);
    throw e;
  }

  void add(TokenKind kind, std::string text, std::size_t pos) {
    if (tokens_.size() >= kMaxTokens) error("the template is too long", pos);
    Token t;
    t.kind = kind;
    t.text = std::move(text);
    locate(pos, t.line, t.column);
    tokens_.push_back(std::move(t));
  }

  std::size_t skip_space(std::size_t i) const {
    while (i < source_.size()) {
      std::size_t next = i;
      if (!is_space(next_code_point(source_, next))) break;
      i = next;
    }
    return i;
  }

  // Moves past a closing tag at `i` ("%}", "-%}" with the space after it, "+%}"), or returns 0. `trim`: a
  // newline after a plain closing tag goes too.
  std::size_t closing(std::size_t i, std::string_view tag, bool plus, bool trim) const {
    if (at(i) == '-' && starts(i + 1, tag)) return skip_space(i + 1 + tag.size());
    if (plus && at(i) == '+' && starts(i + 1, tag)) return i + 1 + tag.size();
    if (!starts(i, tag)) return 0;
    i += tag.size();
    return trim && at(i) == '\n' ? i + 1 : i;
  }

  void advance(std::size_t to) {
    if (to > pos_) line_starting_ = source_[to - 1] == '\n';
    pos_ = to;
  }

  // `{% raw %}` at i: returns the end of the tag, or 0.
  std::size_t raw_tag(std::size_t i) const {
    i += 2;
    if (at(i) == '-' || at(i) == '+') ++i;
    i = skip_space(i);
    if (!starts(i, "raw")) return 0;
    return closing(skip_space(i + 3), "%}", false, false);
  }

  // Text before a tag whose control sign ('-', '+' or another character for none) follows.
  void data(std::string_view text, char sign, bool is_variable, std::size_t pos) {
    if (sign == '-') {
      text = strip(text, nullptr, false, true);
    } else if (sign != '+' && !is_variable) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t line = newline == text.npos ? 0 : newline + 1;
      // Only white space between the start of the line and the tag: lstrip_blocks drops it.
      if ((line > 0 || line_starting_) && strip(text.substr(line), nullptr, true, false).empty()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) add(TokenKind::kData, std::string(text), pos);
  }

  void root() {
    const std::string_view s = source_;
    std::size_t i = pos_;
    for (;; ++i) {
      i = s.find('{', i);
      if (i == s.npos) {
        add(TokenKind::kData, std::string(s.substr(pos_)), pos_);
        pos_ = s.size();
        return;
      }
      const char c = at(i + 1);
      if (c == '%' || c == '{' || c == '#') break;
    }
    const char kind = s[i + 1];
    const char sign = at(i + 2);
    const std::size_t after = i + 2 + (sign == '-' || sign == '+' ? 1 : 0);
    data(s.substr(pos_, i - pos_), sign, kind == '{', pos_);
    if (kind == '#') {
      comment(after);
    } else if (const std::size_t raw_end = kind == '%' ? raw_tag(i) : 0) {
      advance(raw_end);
      raw();
    } else if (kind == '%') {
      add(TokenKind::kBlockBegin, {}, i);
      advance(after);
      code(TokenKind::kBlockEnd);
    } else {
      add(TokenKind::kVariableBegin, {}, i);
      advance(after);
      code(TokenKind::kVariableEnd);
    }
  }

  void comment(std::size_t from) {
    const std::size_t start = from;
    if (from >= source_.size()) {  // jinja2 accepts "{#" as the template's last characters
      pos_ = source_.size();
      return;
    }
    for (std::size_t hash = source_.find("#}", from);; hash = source_.find("#}", hash + 1)) {
      if (hash == std::string::npos) error("this comment has no end '#}'", start);
      const bool signed_end = hash > start && (source_[hash - 1] == '-' || source_[hash - 1] == '+');
      advance(closing(signed_end ? hash - 1 : hash, "#}", true, true));
      return;
    }
  }

  void raw() {
    const std::size_t start = pos_;
    for (std::size_t tag = source_.find("{%", pos_); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      std::size_t i = tag + 2;
      const char sign = at(i);
      if (sign == '-' || sign == '+') ++i;
      i = skip_space(i);
      if (!starts(i, "endraw")) continue;
      const std::size_t end = closing(skip_space(i + 6), "%}", true, true);
      if (end == 0) continue;
      data(std::string_view(source_).substr(start, tag - start), sign, false, start);
      advance(end);
      return;
    }
    if (start < source_.size()) error("this raw block has no '{% endraw %}'", start);
  }

  // Inside a tag, up to and with its end.
  void code(TokenKind end_kind) {
    const bool block = end_kind == TokenKind::kBlockEnd;
    std::string brackets;  // the closing ones still to come; a tag does not end inside them
    while (pos_ < source_.size()) {
      if (brackets.empty()) {
        if (const std::size_t end = closing(pos_, block ? "%}" : "}}", block, block)) {
          add(end_kind, {}, pos_);
          advance(end);
          return;
        }
      }
      const std::size_t after_space = skip_space(pos_);
      if (after_space > pos_) {
        advance(after_space);
      } else {
        token(brackets);
      }
    }
  }

  void token(std::string& brackets) {
    const char c = source_[pos_];
    if (is_ascii_digit(c)) return number();
    if (c == '"' || c == '\'') return string(c);
    std::size_t next = pos_;
    if (is_word(next_code_point(source_, next))) return name();
    static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    std::size_t length = 1;
    for (std::string_view op : kTwo) {
      if (starts(pos_, op)) length = 2;
    }
    if (length == 1 && std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      error(fmt::format("unexpected character {}", repr_str(source_.substr(pos_, next - pos_))), pos_);
    }
    if (c == '{' || c == '(' || c == '[') {
      brackets += c == '{' ? '}' : c == '(' ? ')' : ']';
    } else if (c == '}' || c == ')' || c == ']') {
      if (brackets.empty()) error(fmt::format("unexpected '{}'", c), pos_);
      if (brackets.back() != c)
        error(fmt::format("unexpected '{}', expected '{}'", c, brackets.back()), pos_);
      brackets.pop_back();
    }
    add(TokenKind::kOperator, source_.substr(pos_, length), pos_);
    advance(pos_ + length);
  }

  void name() {
    std::size_t i = pos_;
    while (i < source_.size()) {
      std::size_t next = i;
      if (!is_word(next_code_point(source_, next))) break;
      i = next;
    }
    add(TokenKind::kName, source_.substr(pos_, i - pos_), pos_);
    advance(i);
  }

  // Digits with single underscores between them, from i; i itself if there are none.
  template <class IsDigit>
  std::size_t digits(std::size_t i, IsDigit is_digit) const {
    if (!is_digit(at(i))) return i;
    while (is_digit(at(i)) || (at(i) == '_' && is_digit(at(i + 1)))) ++i;
    return i;
  }

  void number() {
    const std::size_t start = pos_;
    const auto decimal = [this](std::size_t i) { return digits(i, is_ascii_digit); };
    std::size_t end = decimal(start);
    std::size_t real_end = 0;
    std::size_t mantissa = end;
    if (at(end) == '.' && is_ascii_digit(at(end + 1))) real_end = mantissa = decimal(end + 1);
    if (at(mantissa) == 'e' || at(mantissa) == 'E') {
      std::size_t i = mantissa + 1;
      if (at(i) == '+' || at(i) == '-') ++i;
      if (is_ascii_digit(at(i))) real_end = decimal(i);
    }
    if (start > 0 && source_[start - 1] == '.') real_end = 0;  // x.1.5 reads as items
    if (real_end > 0) return add_float(start, real_end);
    int base = 10;
    if (source_[start] == '0') {
      const char x = static_cast<char>(at(start + 1) | 0x20);
      const int prefixed = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
      const auto valid = [&](char c) {
        const int d = is_ascii_digit(c)                        ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                               : 99;
        return d < prefixed;
      };
      const std::size_t first = at(start + 2) == '_' ? start + 3 : start + 2;
      const std::size_t last = prefixed != 0 ? digits(first, valid) : first;
      if (last > first) {
        base = prefixed;
        end = last;
      } else {
        end = digits(start, [](char c) { return c == '0'; });
      }
    }
    std::string text = source_.substr(start, end - start);
    std::erase(text, '_');
    std::int64_t value = 0;
    const char* from = text.data() + (base == 10 ? 0 : 2);
    if (std::from_chars(from, text.data() + text.size(), value, base).ec != std::errc()) {
      error(fmt::format("the integer {} exceeds 64 bits", text.substr(0, 40)), start);
    }
    add(TokenKind::kInteger, {}, start);
    tokens_.back().number = Value::integer(value);
    advance(end);
  }

  void add_float(std::size_t start, std::size_t end) {
    std::string text = source_.substr(start, end - start);
    std::erase(text, '_');
    double value = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc::result_out_of_range) {
      value = text.find("e-") == text.npos && text.find("E-") == text.npos ? HUGE_VAL : 0.0;
    }
    add(TokenKind::kFloat, {}, start);
    tokens_.back().number = Value::real(value);
    advance(end);
  }

  void string(char quote) {
    std::size_t i = pos_ + 1;
    while (i < source_.size() && source_[i] != quote) i += source_[i] == '\\' ? 2 : 1;
    if (i >= source_.size()) error("this string has no end", pos_);
    add(TokenKind::kString, unescape(std::string_view(source_).substr(pos_ + 1, i - pos_ - 1)), pos_);
    advance(i + 1);
  }

  std::string unescape(std::string_view s) const {
    std::string out;
    out.reserve(s.size());
    char32_t high = 0;  // first half of a surrogate pair written as two \u escapes
    for (std::size_t i = 0; i < s.size();) {
      if (s[i] != '\\' || i + 1 >= s.size()) {
        out += s[i++];
        continue;
      }
      const char c = s[i + 1];
      i += 2;
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const std::size_t k = kFrom.find(c); k != kFrom.npos) {
        out += kTo[k];
      } else if (c == '\n') {
        continue;
      } else if (c >= '0' && c <= '7') {
        unsigned value = static_cast<unsigned>(c - '0');
        for (int n = 0; n < 2 && i < s.size() && s[i] >= '0' && s[i] <= '7'; ++n) {
          value = value * 8 + static_cast<unsigned>(s[i++] - '0');
        }
        append_utf8(out, value);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const std::size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        unsigned value = 0;
        const std::string_view hex = s.substr(i, n);
        const auto r = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
        if (hex.size() < n || r.ptr != hex.data() + n) error(fmt::format("truncated \\{} escape", c), pos_);
        if (value > 0x10FFFF) error("a \\U escape is above 10FFFF", pos_);
        i += n;
        if (value >= 0xD800 && value < 0xDC00 && s.substr(i, 2) == "\\u") {
          high = value;
          continue;
        }
        if (high != 0 && value >= 0xDC00 && value < 0xE000)
          value = 0x10000 + ((high - 0xD800) << 10) + (value - 0xDC00);
        high = 0;
        append_utf8(out, value);
      } else if (c == 'N') {
        error("characters by name (\\N) are not supported: write the character or \\u", pos_);
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  std::string source_;
  std::vector<std::size_t> line_starts_{0};
  std::vector<Token> tokens_;
  std::size_t pos_ = 0;
  mutable std::size_t located_ = 0, located_column_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace narrow::text::jinja

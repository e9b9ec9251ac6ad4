// Methods of Python's str.
#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {
namespace {

void no_names(std::string_view function, const Args& args) {
  if (!args.named.empty()) fail("{} takes no named arguments", function);
}

template <std::string (*map)(std::string_view)>
Value mapped(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("a string method", args, {});
  in.budget().step(self.text().size() / 16);
  return in.new_str(map(self.text()), self.is_markup());
}

template <bool left, bool right>
Value stripped(Interpreter& in, const Value& self, const Args& args) {
  no_names("strip()", args);
  const Bound b("strip()", args, {"chars"});
  if (!b.given(0)) return in.new_str(std::string(strip(self.text(), nullptr, left, right)), self.is_markup());
  const std::string_view chars = b.text(0);
  in.budget().bytes(chars.size());
  in.budget().step(1 + std::min(chars.size(), self.text().size()) * (chars.size() / 64));
  return in.new_str(std::string(strip(self.text(), &chars, left, right)), self.is_markup());
}

Values split_space(std::string_view s, std::int64_t limit, bool from_right) {
  Values out;
  while (true) {
    s = strip(s, nullptr, !from_right, from_right);
    if (s.empty()) break;
    if (limit >= 0 && static_cast<std::int64_t>(out.size()) == limit) {
      out.push_back(Value::str(std::string(s)));
      break;
    }
    std::size_t cut = from_right ? 0 : s.size();  // where the next white space is
    for (std::size_t pos = 0; pos < s.size();) {
      const std::size_t start = pos;
      if (!is_space(next_code_point(s, pos))) continue;
      cut = from_right ? pos : start;
      if (!from_right) break;
    }
    if (from_right) {
      out.push_back(Value::str(std::string(s.substr(cut))));
      s = s.substr(0, cut);
    } else {
      out.push_back(Value::str(std::string(s.substr(0, cut))));
      s = s.substr(cut);
    }
  }
  return out;
}

Values split_text(std::string_view s, std::string_view sep, std::int64_t limit, bool from_right) {
  Values out;
  while (limit < 0 || static_cast<std::int64_t>(out.size()) < limit) {
    const std::size_t i = from_right ? s.rfind(sep) : s.find(sep);
    if (i == s.npos) break;
    out.push_back(Value::str(std::string(from_right ? s.substr(i + sep.size()) : s.substr(0, i))));
    s = from_right ? s.substr(0, i) : s.substr(i + sep.size());
  }
  out.push_back(Value::str(std::string(s)));
  return out;
}

template <bool from_right>
Value split(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("split()", args, {"sep", "maxsplit"});
  const std::string& s = self.text();
  const std::int64_t limit = b.integer(1, -1);
  Values parts;
  if (b.given(0)) {
    const std::string& sep = b.text(0);
    if (sep.empty()) fail("split(): the separator is empty");
    // The list is charged before it is made: it may be much larger than the text.
    std::uint64_t n = 1;
    for (std::size_t i = s.find(sep); i != s.npos; i = s.find(sep, i + sep.size())) ++n;
    in.budget().bytes(n, 2 * kValueBytes);
    in.budget().step(n);
    parts = split_text(s, sep, limit, from_right);
  } else {
    in.budget().bytes(s.size() / 2 + 1, 2 * kValueBytes);
    // From the right every word looks for its start from the left.
    in.budget().step(from_right ? s.size() : s.size() / 16);
    if (from_right && s.size() > 65536) fail("rsplit() without separator takes at most 65536 bytes");
    parts = split_space(s, limit, from_right);
  }
  in.budget().bytes(s.size());
  if (from_right) std::reverse(parts.begin(), parts.end());
  return make_list(std::move(parts));
}

Value splitlines(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("splitlines()", args, {"keepends"});
  return in.new_list(split_lines(in, self.text(), b.flag(0)));
}

template <bool from_right>
Value partition(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("partition()", args, {"sep"}, 1);
  const std::string &s = self.text(), &sep = b.text(0);
  if (sep.empty()) fail("partition(): the separator is empty");
  in.budget().bytes(s.size() + sep.size() + 4 * kValueBytes);
  const std::size_t i = from_right ? s.rfind(sep) : s.find(sep);
  const Value empty = Value::str("");
  if (i == s.npos) return from_right ? make_tuple({empty, empty, self}) : make_tuple({self, empty, empty});
  return make_tuple({Value::str(s.substr(0, i)), b.at(0), Value::str(s.substr(i + sep.size()))});
}

// The part of self between the optional arguments start and end, and its first character's index.
std::string_view window(const Value& self, const Bound& b, std::int64_t& first) {
  const std::string& s = self.text();
  const auto n = static_cast<std::int64_t>(count_code_points(s));
  const auto clip = [n](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? std::max(i, -n) + n : i, 0, n);
  };
  const auto index = [&](std::size_t arg, std::int64_t otherwise) {
    return b.given(arg) ? b.integer(arg, 0) : otherwise;
  };
  const std::int64_t start = index(1, 0), from = clip(start), to = clip(index(2, n));
  first = from;
  if (to < from || start > n) {
    first = -1;  // matches nothing, not even an empty text
    return {};
  }
  const std::size_t at = byte_offset(s, static_cast<std::size_t>(from));
  return std::string_view(s).substr(at, byte_offset(s, static_cast<std::size_t>(to)) - at);
}

template <bool from_right, bool must_find>
Value find(Interpreter& in, const Value& self, const Args& args) {
  no_names("find()", args);
  const Bound b("find()", args, {"text", "start", "end"}, 1);
  in.budget().step(self.text().size() / 16);
  std::int64_t first = 0;
  const std::string_view s = window(self, b, first);
  const std::size_t i = first < 0 ? s.npos : from_right ? s.rfind(b.text(0)) : s.find(b.text(0));
  if (i == s.npos && must_find) fail("index(): {} is not in the text", repr_str(b.text(0).substr(0, 80)));
  if (i == s.npos) return Value::integer(-1);
  return Value::integer(first + static_cast<std::int64_t>(count_code_points(s.substr(0, i))));
}

Value count(Interpreter& in, const Value& self, const Args& args) {
  no_names("count()", args);
  const Bound b("count()", args, {"text", "start", "end"}, 1);
  in.budget().step(self.text().size() / 16);
  std::int64_t first = 0, n = 0;
  const std::string_view s = window(self, b, first);
  const std::string& what = b.text(0);
  if (first < 0) return Value::integer(0);
  if (what.empty()) return Value::integer(static_cast<std::int64_t>(count_code_points(s)) + 1);
  for (std::size_t i = s.find(what); i != s.npos; i = s.find(what, i + what.size())) ++n;
  return Value::integer(n);
}

template <bool at_end>
Value has_edge(Interpreter& in, const Value& self, const Args& args) {
  no_names("startswith()", args);
  const Bound b("startswith()", args, {"prefix", "start", "end"}, 1);
  std::int64_t first = 0;
  if (b.get(1) != nullptr) in.budget().step(self.text().size() / 16);
  const std::string_view s = b.get(1) != nullptr ? window(self, b, first) : std::string_view(self.text());
  const auto matches = [&](const Value& v) {
    if (v.is_undefined()) fail("{}", v.undefined_reason());
    if (!v.is_str())
      fail("startswith() and endswith() need a string or a tuple of strings, not {}", type_name(v));
    return first >= 0 && (at_end ? s.ends_with(v.text()) : s.starts_with(v.text()));
  };
  if (is_flavor(b.at(0), SeqObj::Flavor::kTuple)) {
    const Values& all = b.at(0).seq().items;
    in.budget().step(all.size());
    return Value::boolean(std::any_of(all.begin(), all.end(), matches));
  }
  return Value::boolean(matches(b.at(0)));
}

template <bool at_end>
Value remove_edge(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("removeprefix()", args, {"prefix"}, 1);
  const std::string &s = self.text(), &edge = b.text(0);
  if (!(at_end ? s.ends_with(edge) : s.starts_with(edge))) return self;
  return in.new_str(at_end ? s.substr(0, s.size() - edge.size()) : s.substr(edge.size()));
}

Value replace(Interpreter& in, const Value& self, const Args& args) {
  no_names("replace()", args);
  const Bound b("replace()", args, {"old", "new", "count"}, 2);
  return Value::str(replace_text(in, self.text(), b.text(0), b.text(1), b.integer(2, -1)), self.is_markup());
}

Value join(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("join()", args, {"iterable"}, 1);
  std::string out;
  bool first = true;
  for (const Value& v : in.items(b.at(0))) {
    if (!v.is_str()) fail("join(): all items must be strings, found {}", type_name(v));
    in.budget().bytes(v.text().size() + self.text().size());
    if (!first) out += self.text();
    first = false;
    out += v.text();
  }
  return Value::str(std::move(out), self.is_markup());
}

enum class Side { kLeft, kRight, kBoth };
template <Side side>
Value pad(Interpreter& in, const Value& self, const Args& args) {
  no_names("center()", args);
  const Bound b("center()", args, {"width", "fill"}, 1);
  const std::string fill = b.get(1) ? b.text(1) : " ";
  if (count_code_points(fill) != 1) fail("the fill must be one character");
  return Value::str(pad_text(in, self.text(), b.integer(0, 0), fill,
                             side == Side::kLeft    ? 'l'
                             : side == Side::kRight ? 'r'
                                                    : 'c'));
}

Value zfill(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("zfill()", args, {"width"}, 1);
  const std::string& s = self.text();
  const bool sign = !s.empty() && (s[0] == '-' || s[0] == '+');
  if (!sign) return Value::str(pad_text(in, s, b.integer(0, 0), "0", 'r'));
  const std::int64_t width = b.integer(0, 0);
  return Value::str(s[0] + pad_text(in, s.substr(1), width > 0 ? width - 1 : 0, "0", 'r'));
}

Value expandtabs(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("expandtabs()", args, {"tabsize"});
  const std::int64_t size = b.integer(0, 8);
  std::string out;
  std::int64_t column = 0;
  for (char c : self.text()) {
    if (c == '\t') {
      const std::int64_t n = size > 0 ? size - column % size : 0;
      in.budget().bytes(static_cast<std::uint64_t>(n));
      out.append(static_cast<std::size_t>(n), ' ');
      column += n;
    } else {
      out += c;
      if (c == '\n' || c == '\r') {
        column = 0;
      } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
        ++column;
      }
    }
  }
  return in.new_str(std::move(out));
}

template <bool (*is)(char32_t)>
bool all_are(std::string_view s) {
  for (std::size_t pos = 0; pos < s.size();) {
    if (!is(next_code_point(s, pos))) return false;
  }
  return !s.empty();
}
bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }
bool is_digit_char(char32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0x2070 && c <= 0x2089);
}
bool all_printable(std::string_view s) { return s.empty() || all_are<is_printable>(s); }
bool all_ascii(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}
bool is_title_case(std::string_view s) {
  bool cased = false, word = false;
  for (std::size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    const bool upper = is_upper(c), lower = is_lower(c);
    if ((upper && word) || (lower && !word)) return false;
    word = upper || lower;
    cased |= word;
  }
  return cased;
}
bool is_identifier(std::string_view s) {
  std::size_t pos = 0;
  return !s.empty() && all_are<is_word>(s) && !is_numeric(next_code_point(s, pos));
}

template <bool (*test)(std::string_view)>
Value asked(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("a string method", args, {});
  in.budget().step(self.text().size() / 16);
  return Value::boolean(test(self.text()));
}

Value format(Interpreter& in, const Value& self, const Args& args) {
  return in.new_str(brace_format(in, self.text(), args));
}

constexpr Named<MethodFn> kMethods[] = {
    {"strip", stripped<true, true>},
    {"lstrip", stripped<true, false>},
    {"rstrip", stripped<false, true>},
    {"split", split<false>},
    {"rsplit", split<true>},
    {"splitlines", splitlines},
    {"partition", partition<false>},
    {"rpartition", partition<true>},
    {"startswith", has_edge<false>},
    {"endswith", has_edge<true>},
    {"removeprefix", remove_edge<false>},
    {"removesuffix", remove_edge<true>},
    {"replace", replace},
    {"find", find<false, false>},
    {"rfind", find<true, false>},
    {"index", find<false, true>},
    {"rindex", find<true, true>},
    {"count", count},
    {"join", join},
    {"upper", mapped<to_upper>},
    {"lower", mapped<to_lower>},
    {"casefold", mapped<to_lower>},
    {"title", mapped<to_title>},
    {"capitalize", mapped<to_capitalized>},
    {"swapcase", mapped<swap_case>},
    {"center", pad<Side::kBoth>},
    {"ljust", pad<Side::kLeft>},
    {"rjust", pad<Side::kRight>},
    {"zfill", zfill},
    {"expandtabs", expandtabs},
    {"isdigit", asked<all_are<is_digit_char>>},
    {"isdecimal", asked<all_are<is_decimal>>},
    {"isnumeric", asked<all_are<is_numeric>>},
    {"isalpha", asked<all_are<is_alpha>>},
    {"isalnum", asked<all_are<is_alnum>>},
    {"isspace", asked<all_are<is_space>>},
    {"isupper", asked<has_upper_only>},
    {"islower", asked<has_lower_only>},
    {"istitle", asked<is_title_case>},
    {"isascii", asked<all_ascii>},
    {"isidentifier", asked<is_identifier>},
    {"isprintable", asked<all_printable>},
    {"format", format},
};

}  // namespace

MethodFn find_str_method(std::string_view name) { return find_in(kMethods, name); }

bool has_upper_only(std::string_view s) {
  bool any = false;
  for (std::size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (is_lower(c)) return false;
    any |= is_upper(c);
  }
  return any;
}

bool has_lower_only(std::string_view s) {
  bool any = false;
  for (std::size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (is_upper(c)) return false;
    any |= is_lower(c);
  }
  return any;
}

Values split_lines(Interpreter& in, std::string_view s, bool keep_ends) {
  Values out;
  std::size_t start = 0;
  for (std::size_t pos = 0; pos < s.size();) {
    const std::size_t end = pos;
    const char32_t c = next_code_point(s, pos);
    const bool line_break =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!line_break) continue;
    if (c == '\r' && pos < s.size() && s[pos] == '\n') ++pos;
    in.budget().bytes(2 * kValueBytes + (pos - start));
    out.push_back(Value::str(std::string(s.substr(start, (keep_ends ? pos : end) - start))));
    start = pos;
  }
  if (start < s.size()) out.push_back(Value::str(std::string(s.substr(start))));
  return out;
}

std::string replace_text(Interpreter& in, const std::string& s, const std::string& from,
                         const std::string& to, std::int64_t limit) {
  in.budget().bytes(s.size());
  in.budget().step(s.size() / 64);
  std::string out;
  std::size_t pos = 0;
  std::int64_t n = 0;
  if (from.empty()) {  // between all characters and at both ends
    while (limit < 0 || n < limit) {
      in.budget().step();
      in.budget().bytes(to.size());
      out += to;
      ++n;
      if (pos >= s.size()) return out;
      const std::size_t start = pos;
      next_code_point(s, pos);
      out.append(s, start, pos - start);
    }
    return out + s.substr(pos);
  }
  for (; limit < 0 || n < limit; ++n) {
    const std::size_t i = s.find(from, pos);
    if (i == s.npos) break;
    in.budget().bytes(to.size());
    out.append(s, pos, i - pos);
    out += to;
    pos = i + from.size();
  }
  return out.append(s, pos);
}

std::string pad_text(Interpreter& in, const std::string& s, std::int64_t width, std::string_view fill,
                     char side) {
  const auto n = static_cast<std::int64_t>(count_code_points(s));
  in.budget().bytes(s.size());
  if (width <= n) return s;
  const std::int64_t total = width - n;
  in.budget().bytes(static_cast<std::uint64_t>(total), fill.size());
  // str.center puts the odd one on the left when the width is odd.
  const std::int64_t left = side == 'r' ? total : side == 'l' ? 0 : total / 2 + (total & width & 1);
  std::string out;
  for (std::int64_t i = 0; i < left; ++i) out += fill;
  out += s;
  for (std::int64_t i = left; i < total; ++i) out += fill;
  return out;
}

}  // namespace narrow::text::jinja

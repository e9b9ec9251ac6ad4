// Python's two ways of formatting: "..." % values and "...".format(values).
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {
namespace {

constexpr std::int64_t kMaxWidth = 100'000, kMaxPrecision = 1000;

// [[fill]align][sign][#][0][width][,][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = 0, sign = '-', type = 0, group = 0;
  bool alternate = false, zero = false;
  std::int64_t width = 0, precision = -1;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::int64_t number_at(std::string_view s, std::size_t& i, std::int64_t limit) {
  std::int64_t n = 0;
  for (; i < s.size() && is_digit(s[i]); ++i) {
    n = n * 10 + (s[i] - '0');
    if (n > limit) fail("a format's width or precision exceeds {}", limit);
  }
  return n;
}

std::string group_thousands(std::string digits, char separator) {
  const std::size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (std::size_t i = end; i > 3;) {
    i -= 3;
    digits.insert(i, 1, separator);
  }
  return digits;
}

std::string digits_in_base(std::uint64_t u, char type) {
  switch (type) {
    case 'x':
      return fmt::format("{:x}", u);
    case 'X':
      return fmt::format("{:X}", u);
    case 'o':
      return fmt::format("{:o}", u);
    case 'b':
      return fmt::format("{:b}", u);
    default:
      return fmt::format("{}", u);
  }
}

// |d| by one of e E f F g G %.
std::string float_digits(double d, char type, std::int64_t precision, bool alternate) {
  const bool percent = type == '%';
  if (percent) d *= 100;
  if (!std::isfinite(d)) {
    std::string s = std::isnan(d) ? "nan" : "inf";
    if (type >= 'A' && type <= 'Z') s = std::isnan(d) ? "NAN" : "INF";
    return percent ? s + "%" : s;
  }
  const int p = static_cast<int>(precision < 0 ? 6 : precision);
  switch (type) {
    case 'e':
      return alternate ? fmt::format("{:#.{}e}", d, p) : fmt::format("{:.{}e}", d, p);
    case 'E':
      return alternate ? fmt::format("{:#.{}E}", d, p) : fmt::format("{:.{}E}", d, p);
    case 'g':
      return alternate ? fmt::format("{:#.{}g}", d, std::max(p, 1))
                       : fmt::format("{:.{}g}", d, std::max(p, 1));
    case 'G':
      return alternate ? fmt::format("{:#.{}G}", d, std::max(p, 1))
                       : fmt::format("{:.{}G}", d, std::max(p, 1));
    default: {
      std::string s = alternate ? fmt::format("{:#.{}f}", d, p) : fmt::format("{:.{}f}", d, p);
      return percent ? s + "%" : s;
    }
  }
}

// sign and digits, filled to the width.
std::string pad(std::string_view prefix, std::string_view body, const Spec& spec, char default_align,
                Budget& budget) {
  const auto size = static_cast<std::int64_t>(count_code_points(prefix) + count_code_points(body));
  const std::int64_t missing = std::max<std::int64_t>(spec.width - size, 0);
  budget.bytes(prefix.size() + body.size() + static_cast<std::uint64_t>(missing) * 4);
  const char align = spec.align != 0 ? spec.align : default_align;
  const std::int64_t before = align == '<' || align == '=' ? 0 : align == '^' ? missing / 2 : missing;
  const std::int64_t after = align == '<' || align == '^' ? missing - before : 0;
  std::string out;
  for (std::int64_t i = 0; i < before; ++i) out += spec.fill;
  out += prefix;
  for (std::int64_t i = 0; align == '=' && i < missing; ++i) out += spec.fill;
  out += body;
  for (std::int64_t i = 0; i < after; ++i) out += spec.fill;
  return out;
}

std::string sign_text(bool negative, char sign) {
  if (negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

std::string format_int(std::int64_t i, const Spec& spec, Budget& budget) {
  const std::uint64_t u = i < 0 ? 0 - static_cast<std::uint64_t>(i) : static_cast<std::uint64_t>(i);
  std::string prefix = sign_text(i < 0, spec.sign);
  if (spec.alternate && (spec.type == 'x' || spec.type == 'X' || spec.type == 'o' || spec.type == 'b')) {
    prefix += '0';
    prefix += spec.type;
  }
  std::string digits = digits_in_base(u, spec.type);
  if (spec.group != 0) digits = group_thousands(std::move(digits), spec.group);
  return pad(prefix, digits, spec, '>', budget);
}

std::string format_float(double d, const Spec& spec, Budget& budget) {
  const bool negative = std::signbit(d) && !std::isnan(d);
  std::string digits;
  if (spec.type == 0 && spec.precision < 0) {
    digits = repr_float(std::fabs(d));
  } else if (spec.type == 0) {
    // Like g, but with a digit after the point.
    digits = float_digits(std::fabs(d), 'g', spec.precision, false);
    if (digits.find_first_not_of("0123456789") == digits.npos) digits += ".0";
  } else {
    digits = float_digits(std::fabs(d), spec.type, spec.precision, spec.alternate);
  }
  if (spec.group != 0) digits = group_thousands(std::move(digits), spec.group);
  return pad(sign_text(negative, spec.sign), digits, spec, '>', budget);
}

Spec parse_spec(std::string_view s) {
  Spec spec;
  std::size_t i = 0;
  const auto is_align = [&](std::size_t k) {
    return k < s.size() && std::string_view("<>=^").find(s[k]) != s.npos;
  };
  if (!s.empty()) {
    std::size_t after = 0;
    next_code_point(s, after);
    if (is_align(after)) {
      spec.fill = s.substr(0, after);
      spec.align = s[after];
      i = after + 1;
    } else if (is_align(0)) {
      spec.align = s[0];
      i = 1;
    }
  }
  if (i < s.size() && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) spec.sign = s[i++];
  if (i < s.size() && s[i] == '#') {
    spec.alternate = true;
    ++i;
  }
  if (i < s.size() && s[i] == '0') {
    spec.zero = true;
    ++i;
  }
  spec.width = number_at(s, i, kMaxWidth);
  if (i < s.size() && (s[i] == ',' || s[i] == '_')) spec.group = s[i++];
  if (i < s.size() && s[i] == '.') {
    ++i;
    if (i >= s.size() || !is_digit(s[i])) fail("a format has no precision after '.'");
    spec.precision = number_at(s, i, kMaxPrecision);
  }
  if (i < s.size()) spec.type = s[i++];
  if (i != s.size()) fail("'{}' is not a format", s.substr(0, 40));
  return spec;
}

std::string format_value(const Value& v, std::string_view format, Budget& budget) {
  if (format.empty()) return to_str(v, budget);
  Spec spec = parse_spec(format);
  const bool is_float_type =
      spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  const bool is_int_type =
      spec.type != 0 && std::string_view("dxXobn").find(spec.type) != std::string_view::npos;
  if (v.is_str() || (v.is(Kind::kBool) && spec.type == 's')) {
    if ((spec.type != 0 && spec.type != 's') || spec.align == '=' || spec.sign != '-' || spec.group != 0) {
      fail("'{}' is not a format for a string", format.substr(0, 40));
    }
    if (spec.zero && spec.align == 0) spec.fill = "0";
    std::string s = to_str(v, budget);
    if (spec.precision >= 0) s = s.substr(0, byte_offset(s, static_cast<std::size_t>(spec.precision)));
    return pad("", s, spec, '<', budget);
  }
  if (!v.is_number()) fail("a {} has no formats", type_name(v));
  if (spec.zero && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  if (v.is_integral() && !is_float_type) {
    if ((spec.type != 0 && !is_int_type) || spec.precision >= 0) {
      fail("'{}' is not a format for an integer", format.substr(0, 40));
    }
    return format_int(v.as_int(), spec, budget);
  }
  if (spec.type != 0 && !is_float_type) fail("'{}' is not a format for a float", format.substr(0, 40));
  return format_float(v.as_float(), spec, budget);
}

}  // namespace

std::string percent_format(std::string_view format, const Value& args, Budget& budget) {
  const bool tuple = is_flavor(args, SeqObj::Flavor::kTuple);
  const Values* values = tuple ? &args.seq().items : nullptr;
  std::size_t used = 0;
  const auto take = [&]() -> const Value& {
    if (values != nullptr) {
      if (used >= values->size()) fail("there are not enough values for the format");
      return (*values)[used++];
    }
    if (used++ > 0) fail("there are not enough values for the format");
    return args;
  };
  bool by_key = false;
  std::string out;
  for (std::size_t i = 0; i < format.size();) {
    budget.step();
    if (format[i] != '%') {
      const std::size_t end = std::min(format.find('%', i), format.size());
      budget.bytes(end - i);
      out += format.substr(i, end - i);
      i = end;
      continue;
    }
    ++i;
    Spec spec;
    const Value* keyed = nullptr;
    if (i < format.size() && format[i] == '(') {
      const std::size_t end = format.find(')', i);
      if (end == format.npos) fail("a format's key has no ')'");
      if (!args.is(Kind::kDict)) fail("a format with keys needs a dict");
      const std::string_view key = format.substr(i + 1, end - i - 1);
      keyed = args.dict().find(key);
      if (keyed == nullptr) fail("the format's key '{}' is not in the dict", key.substr(0, 40));
      by_key = true;
      i = end + 1;
    }
    bool left = false;
    for (; i < format.size() && std::string_view("-+ #0").find(format[i]) != std::string_view::npos; ++i) {
      if (format[i] == '-') left = true;
      if (format[i] == '+') spec.sign = '+';
      if (format[i] == ' ' && spec.sign == '-') spec.sign = ' ';
      if (format[i] == '#') spec.alternate = true;
      if (format[i] == '0') spec.zero = true;
    }
    const auto star = [&](std::int64_t limit) {
      ++i;
      const Value& n = take();
      if (!n.is_integral()) fail("'*' needs an integer");
      if (n.as_int() > limit || n.as_int() < -limit) fail("a format's width or precision exceeds {}", limit);
      return n.as_int();
    };
    if (i < format.size() && format[i] == '*') {
      spec.width = star(kMaxWidth);
      if (spec.width < 0) left = true;
      spec.width = std::abs(spec.width);
    } else {
      spec.width = number_at(format, i, kMaxWidth);
    }
    if (i < format.size() && format[i] == '.') {
      ++i;
      spec.precision = i < format.size() && format[i] == '*' ? std::max<std::int64_t>(star(kMaxPrecision), 0)
                                                             : number_at(format, i, kMaxPrecision);
    }
    while (i < format.size() && (format[i] == 'l' || format[i] == 'h' || format[i] == 'L')) ++i;
    if (i >= format.size()) fail("the format is incomplete");
    const char type = format[i++];
    if (type == '%') {
      out += '%';
      continue;
    }
    const Value& v = keyed != nullptr ? *keyed : take();
    if (left) {
      spec.align = '<';
    } else if (spec.zero && type != 's' && type != 'r' && type != 'a' && type != 'c') {
      spec.align = '=';
      spec.fill = "0";
    }
    switch (type) {
      case 's':
      case 'r':
      case 'a':
      case 'c': {
        std::string s = type == 's' ? to_str(v, budget) : type == 'c' ? std::string() : repr(v, budget);
        if (type == 'c') {
          if (v.is_integral() && v.as_int() >= 0 && v.as_int() <= 0x10FFFF) {
            append_utf8(s, static_cast<char32_t>(v.as_int()));
          } else if (v.is_str() && count_code_points(v.text()) == 1) {
            s = v.text();
          } else {
            fail("'%c' needs an integer or a character");
          }
        } else if (spec.precision >= 0) {
          s = s.substr(0, byte_offset(s, static_cast<std::size_t>(spec.precision)));
        }
        out += pad("", s, spec, '>', budget);
        break;
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        const bool real = v.is(Kind::kFloat) && (type == 'd' || type == 'i' || type == 'u');
        if (!v.is_integral() && !real) fail("'%{}' needs a number, not {}", type, type_name(v));
        if (real && !(std::fabs(v.as_float()) < 9.2e18))
          fail("the number {} exceeds 64 bits", repr_float(v.as_float()));
        spec.type = type == 'i' || type == 'u' ? 'd' : type;
        const std::int64_t n = real ? static_cast<std::int64_t>(v.as_float()) : v.as_int();
        if (spec.precision > 0) {  // at least so many digits
          const std::string digits = digits_in_base(
              n < 0 ? 0 - static_cast<std::uint64_t>(n) : static_cast<std::uint64_t>(n), spec.type);
          std::string zeros;
          if (spec.precision > static_cast<std::int64_t>(digits.size())) {
            zeros.assign(static_cast<std::size_t>(spec.precision) - digits.size(), '0');
          }
          out += pad(sign_text(n < 0, spec.sign), zeros + digits, spec, '>', budget);
        } else {
          out += format_int(n, spec, budget);
        }
        break;
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!v.is_number()) fail("'%{}' needs a number, not {}", type, type_name(v));
        spec.type = type;
        if (spec.precision < 0) spec.precision = 6;
        out += format_float(v.as_float(), spec, budget);
        break;
      default:
        fail("'%{}' is not a format", type);
    }
  }
  const std::size_t given = tuple ? values->size() : 1;
  const bool may_be_left =
      !tuple && (args.is(Kind::kDict) || (by_key && used == 0) || is_flavor(args, SeqObj::Flavor::kList));
  if (used < given && !may_be_left) fail("not all values are used by the format");
  return out;
}

namespace {

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, const Args& args) : in_(in), args_(args) {}

  std::string run(std::string_view format, int depth) {
    if (depth > 2) fail("a format is nested too deep");
    std::string out;
    for (std::size_t i = 0; i < format.size();) {
      in_.budget().step();
      const char c = format[i];
      if (c != '{' && c != '}') {
        const std::size_t end = std::min(format.find_first_of("{}", i), format.size());
        in_.budget().bytes(end - i);
        out += format.substr(i, end - i);
        i = end;
      } else if (i + 1 < format.size() && format[i + 1] == c) {
        out += c;
        i += 2;
      } else if (c == '}') {
        fail("a format has a single '}}'");
      } else {
        out += field(format, i, depth);
      }
    }
    return out;
  }

 private:
  // A replacement field; `i` is at its '{' and ends after its '}'.
  std::string field(std::string_view format, std::size_t& i, int depth) {
    std::size_t end = i + 1;
    for (int open = 1; end < format.size(); ++end) {
      open += format[end] == '{' ? 1 : format[end] == '}' ? -1 : 0;
      if (open == 0) break;
    }
    if (end >= format.size()) fail("a format has a single '{{'");
    const std::string_view all = format.substr(i + 1, end - i - 1);
    i = end + 1;
    std::size_t name_end = 0;  // '!' or ':' outside of brackets
    for (bool bracket = false; name_end < all.size(); ++name_end) {
      const char c = all[name_end];
      if (c == '[') bracket = true;
      if (c == ']') bracket = false;
      if (!bracket && (c == '!' || c == ':')) break;
    }
    Value v = lookup(all.substr(0, name_end));
    std::string_view rest = all.substr(name_end);
    if (rest.starts_with('!')) {
      const char kind = rest.size() > 1 ? rest[1] : '\0';
      if ((kind != 's' && kind != 'r' && kind != 'a') || (rest.size() > 2 && rest[2] != ':')) {
        fail("a format has an unknown conversion");
      }
      v = Value::str(kind == 's' ? in_.str(v) : repr(v, in_.budget()));
      rest.remove_prefix(2);
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    return format_value(v, run(rest, depth + 1), in_.budget());
  }

  Value lookup(std::string_view name) {
    std::size_t i = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, i);
    Value v;
    if (first.empty() || first.find_first_not_of("0123456789") == first.npos) {
      std::size_t pos = 0;
      const bool automatic = first.empty();
      if ((automatic && numbering_ == 'm') || (!automatic && numbering_ == 'a')) {
        fail("a format mixes automatic and given positions");
      }
      numbering_ = automatic ? 'a' : 'm';
      const std::size_t index =
          automatic ? next_++ : static_cast<std::size_t>(number_at(first, pos, 1'000'000));
      if (index >= args_.pos.size()) fail("there are not enough values for the format");
      v = args_.pos[index];
    } else {
      const auto it = std::find_if(args_.named.begin(), args_.named.end(),
                                   [&](const auto& a) { return a.first == first; });
      if (it == args_.named.end()) fail("the format's name '{}' is not given", first.substr(0, 40));
      v = it->second;
    }
    while (i < name.size()) {
      in_.budget().step();
      if (name[i] == '.') {
        const std::size_t end = std::min(name.find_first_of(".[", i + 1), name.size());
        v = in_.get_attr(v, std::string(name.substr(i + 1, end - i - 1)));
        i = end;
      } else {
        const std::size_t end = name.find(']', i);
        if (name[i] != '[' || end == name.npos) fail("a format's field name is malformed");
        const std::string_view key = name.substr(i + 1, end - i - 1);
        std::size_t pos = 0;
        const bool index = !key.empty() && key.find_first_not_of("0123456789") == key.npos;
        v = in_.get_item(
            v, index ? Value::integer(number_at(key, pos, 1'000'000'000)) : Value::str(std::string(key)));
        i = end + 1;
      }
    }
    return v;
  }

  Interpreter& in_;
  const Args& args_;
  std::size_t next_ = 0;
  char numbering_ = 0;  // 'a' automatic, 'm' manual
};

}  // namespace

std::string brace_format(Interpreter& in, std::string_view format, const Args& args) {
  return BraceFormatter(in, args).run(format, 0);
}

}  // namespace narrow::text::jinja

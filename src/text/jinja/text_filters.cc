// Filters on strings and numbers.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {
namespace {

// The name of a filter is added to errors by Interpreter::filter.
template <std::string (*map)(std::string_view)>
Value mapped(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  const std::string s = in.str(v);
  in.budget().step(s.size() / 16);
  return in.new_str(map(s));
}

// Words begin after white space, hyphens and opening brackets, unlike str.title.
std::string title(std::string_view s) {
  std::string out;
  bool start = true;
  for (std::size_t pos = 0; pos < s.size();) {
    const std::size_t from = pos;
    const char32_t c = next_code_point(s, pos);
    const std::string_view one = s.substr(from, pos - from);
    const bool separates = c == '-' || is_space(c) || c == '(' || c == '{' || c == '[' || c == '<';
    out += separates ? std::string(one) : start ? to_upper(one) : to_lower(one);
    start = separates;
  }
  return out;
}

Value trim(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"chars"});
  const std::string s = in.str(v);
  if (!b.given(0)) return in.new_str(std::string(strip(s, nullptr, true, true)), v.is_markup());
  const std::string_view chars = b.text(0);
  in.budget().step(1 + std::min(chars.size(), s.size()) * (chars.size() / 64));
  return in.new_str(std::string(strip(s, &chars, true, true)), v.is_markup());
}

Value string(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  return v.is_str() ? v : in.new_str(in.str(v));
}

Value replace(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"old", "new", "count"}, 2);
  const std::int64_t count = b.given(2) ? b.integer(2, -1) : -1;
  return Value::str(replace_text(in, in.str(v), in.str(b.at(0)), in.str(b.at(1)), count));
}

Value center(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"width"});
  return Value::str(pad_text(in, in.str(v), b.integer(0, 80), " ", 'c'));
}

Value indent(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"width", "first", "blank"});
  if (v.is_undefined()) fail("{}", v.undefined_reason());
  if (!v.is_str()) fail("it indents a string, not {}", type_name(v));
  std::string by;
  if (b.get(0) != nullptr && b.at(0).is_str()) {
    by = b.text(0);
  } else {
    const std::int64_t n = std::max<std::int64_t>(b.integer(0, 4), 0);
    in.budget().bytes(static_cast<std::uint64_t>(n));
    by.assign(static_cast<std::size_t>(n), ' ');
  }
  const Values lines = split_lines(in, v.text() + "\n", false);
  std::string out = b.flag(1) ? by : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i].text();
    in.budget().bytes(line.size() + by.size() + 1);
    if (i > 0) {
      out += '\n';
      if (b.flag(2) || !line.empty()) out += by;
    }
    out += line;
  }
  return Value::str(std::move(out));
}

Value truncate(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"length", "killwords", "end", "leeway"});
  if (!v.is_str()) fail("it shortens a string, not {}", type_name(v));
  const std::string end = b.get(2) ? b.text(2) : "...";
  const std::int64_t length = b.integer(0, 255), leeway = b.given(3) ? b.integer(3, 5) : 5;
  const auto n = static_cast<std::int64_t>(count_code_points(v.text()));
  const auto m = static_cast<std::int64_t>(count_code_points(end));
  if (length < m) fail("the length {} is less than the end's {}", length, m);
  if (leeway < 0) fail("the leeway is negative");
  if (n <= length || n - length <= leeway) return v;
  std::string cut = v.text().substr(0, byte_offset(v.text(), static_cast<std::size_t>(length - m)));
  if (!b.flag(1)) cut = cut.substr(0, cut.rfind(' '));
  return in.new_str(cut + end);
}

Value wordcount(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  const std::string s = in.str(v);
  std::int64_t n = 0;
  bool word = false;
  in.budget().step(s.size() / 16);
  for (std::size_t pos = 0; pos < s.size();) {
    const bool now = is_word(next_code_point(s, pos));
    n += now && !word;
    word = now;
  }
  return Value::integer(n);
}

Value escape(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  if (v.is_markup()) return v;
  return binary_operator(Expr::Op::kAdd, Value::str("", true), Value::str(in.str(v)), in.budget());
}
Value forceescape(Interpreter& in, const Value& v, const Args& args) {
  return escape(in, Value::str(in.str(v)), args);
}
Value safe(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  return in.new_str(in.str(v), true);
}

Value format(Interpreter& in, const Value& v, const Args& args) {
  if (!args.pos.empty() && !args.named.empty()) fail("it takes positional or named arguments, not both");
  Value given = make_tuple(args.pos);
  if (!args.named.empty()) {
    DictObj d;
    for (const auto& [k, x] : args.named) dict_set(d, Value::str(k), x, in.budget());
    given = make_dict(std::move(d));
  }
  return in.new_str(percent_format(in.str(v), given, in.budget()));
}

std::string without_underscores(std::string_view s) {
  // Only single underscores between digits are part of a number.
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const auto digit = [&](std::size_t k) {
      return k < s.size() && std::isalnum(static_cast<unsigned char>(s[k])) != 0;
    };
    if (s[i] == '_' && i > 0 && digit(i - 1) && digit(i + 1)) continue;
    out += s[i];
  }
  return out;
}

std::optional<std::int64_t> parse_int(std::string_view s, std::int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  std::string text = without_underscores(strip(s, nullptr, true, true));
  std::string_view t = text;
  const bool negative = !t.empty() && t[0] == '-';
  if (!t.empty() && (t[0] == '-' || t[0] == '+')) t.remove_prefix(1);
  if (t.size() > 2 && t[0] == '0') {
    const char x = static_cast<char>(t[1] | 0x20);
    const int prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefix != 0 && (base == prefix || base == 0)) {
      t.remove_prefix(2);
      base = prefix;
    }
  }
  if (base == 0) base = 10;
  std::uint64_t u = 0;
  const auto r = std::from_chars(t.data(), t.data() + t.size(), u, static_cast<int>(base));
  if (t.empty() || r.ptr != t.data() + t.size()) return std::nullopt;
  constexpr auto kMax = static_cast<std::uint64_t>(INT64_MAX);
  if (r.ec != std::errc() || u > kMax + (negative ? 1 : 0))
    fail("the integer {} exceeds 64 bits", text.substr(0, 40));
  return negative ? static_cast<std::int64_t>(0 - u) : static_cast<std::int64_t>(u);
}

std::optional<double> parse_float(std::string_view s) {
  std::string text = to_lower(without_underscores(strip(s, nullptr, true, true)));
  std::string_view t = text;
  const bool negative = !t.empty() && t[0] == '-';
  if (!t.empty() && (t[0] == '-' || t[0] == '+')) t.remove_prefix(1);
  if (t.empty() || t[0] == '-' || t[0] == '+') return std::nullopt;
  double d = 0;
  if (t == "inf" || t == "infinity") {
    d = HUGE_VAL;
  } else if (t == "nan") {
    d = std::nan("");
  } else {
    if (t.find_first_not_of("0123456789.e+-") != t.npos) return std::nullopt;
    const auto r = std::from_chars(t.data(), t.data() + t.size(), d);
    if (r.ptr != t.data() + t.size() || r.ec == std::errc::invalid_argument) return std::nullopt;
    if (r.ec == std::errc::result_out_of_range) d = std::strtod(std::string(t).c_str(), nullptr);
  }
  return negative ? -d : d;
}

std::int64_t truncated(double d) {
  if (!(d > -9.3e18 && d < 9.3e18) || d >= 9223372036854775808.0 || d < -9223372036854775808.0) {
    fail("the number {} exceeds 64 bits", repr_float(d));
  }
  return static_cast<std::int64_t>(d);
}

Value to_int(Interpreter&, const Value& v, const Args& args) {
  const Bound b("it", args, {"default", "base"});
  const Value otherwise = b.get(0) ? b.at(0) : Value::integer(0);
  if (v.is_undefined()) fail("{}", v.undefined_reason());
  if (v.is_integral()) return Value::integer(v.as_int());
  if (v.is(Kind::kFloat)) {
    if (std::isnan(v.as_float())) return otherwise;
    return Value::integer(truncated(v.as_float()));
  }
  if (!v.is_str()) return otherwise;
  if (const auto i = parse_int(v.text(), b.integer(1, 10))) return Value::integer(*i);
  const auto d = parse_float(v.text());
  if (!d || std::isnan(*d) || std::isinf(*d)) return otherwise;
  return Value::integer(truncated(*d));
}

Value to_float(Interpreter&, const Value& v, const Args& args) {
  const Bound b("it", args, {"default"});
  if (v.is_undefined()) fail("{}", v.undefined_reason());
  if (v.is_number()) return Value::real(v.as_float());
  if (v.is_str()) {
    if (const auto d = parse_float(v.text())) return Value::real(*d);
  }
  return b.get(0) ? b.at(0) : Value::real(0.0);
}

Value abs_filter(Interpreter&, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  if (v.is(Kind::kFloat)) return Value::real(std::fabs(v.as_float()));
  if (!v.is_integral()) fail("a {} has no absolute value", type_name(v));
  return v.as_int() < 0 ? unary_operator(true, v) : Value::integer(v.as_int());
}

// Python's round(): halves go to the even side, judged by the exact binary value.
Value round_common(const Value& v, std::int64_t precision) {
  if (v.is_integral()) {
    if (precision >= 0) return Value::integer(v.as_int());
    if (precision < -18) return Value::integer(0);
    std::int64_t unit = 1;
    for (std::int64_t i = precision; i < 0; ++i) unit *= 10;
    const std::int64_t x = v.as_int();
    std::int64_t low = x / unit - (x % unit < 0 ? 1 : 0);
    const std::int64_t rest = x - low * unit;
    if (rest > unit - rest || (rest == unit - rest && (low & 1) != 0)) ++low;
    if (__builtin_mul_overflow(low, unit, &low)) fail("an integer result exceeds 64 bits");
    return Value::integer(low);
  }
  const double d = v.as_float();
  if (!std::isfinite(d) || precision > 330) return v;
  if (precision < -310) return Value::real(std::copysign(0.0, d));
  if (precision >= 0) return Value::real(std::stod(fmt::format("{:.{}f}", d, static_cast<int>(precision))));
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return Value::real(std::nearbyint(d / unit) * unit);
}

Value round_filter(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"precision", "method"});
  const std::string method = b.get(1) ? b.text(1) : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("the method must be common, ceil or floor, not '{}'", method);
  }
  if (!v.is_number()) fail("a {} cannot be rounded", type_name(v));
  const std::int64_t precision = b.integer(0, 0);
  if (method == "common") return round_common(v, precision);
  const Value scale =
      binary_operator(Expr::Op::kPow, Value::integer(10), Value::integer(precision), in.budget());
  const Value scaled = binary_operator(Expr::Op::kMul, v, scale, in.budget());
  Value whole = scaled;
  if (scaled.is(Kind::kFloat)) {
    const double d = scaled.as_float();
    if (!std::isfinite(d)) fail("{} cannot be rounded", repr_float(d));
    whole = Value::integer(truncated(method == "ceil" ? std::ceil(d) : std::floor(d)));
  }
  return binary_operator(Expr::Op::kDiv, whole, scale, in.budget());
}

Value default_filter(Interpreter&, const Value& v, const Args& args) {
  const Bound b("it", args, {"default_value", "boolean"});
  if (!v.is_undefined() && !(b.flag(1) && !truthy(v))) return v;
  return b.get(0) ? b.at(0) : Value::str("");
}

Value tojson(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = b.flag(0);
  style.sort_keys = b.flag(3);
  if (b.given(1)) {
    if (b.at(1).is_str()) {
      style.indent = b.text(1);
    } else {
      const std::int64_t n = std::max<std::int64_t>(b.integer(1, 0), 0);
      if (n > 1000) fail("an indent of {} is too wide", n);
      style.indent = std::string(static_cast<std::size_t>(n), ' ');
    }
    style.item_separator = ",";
  }
  if (b.given(2)) {
    const Values pair = in.items(b.at(2));
    if (pair.size() != 2 || !pair[0].is_str() || !pair[1].is_str()) fail("separators must be two strings");
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return Value::str(to_json(v, style, in.budget()));
}

constexpr Named<FilterFn> kFilters[] = {
    {"upper", mapped<to_upper>},
    {"lower", mapped<to_lower>},
    {"capitalize", mapped<to_capitalized>},
    {"title", mapped<title>},
    {"trim", trim},
    {"string", string},
    {"replace", replace},
    {"center", center},
    {"indent", indent},
    {"truncate", truncate},
    {"wordcount", wordcount},
    {"escape", escape},
    {"e", escape},
    {"forceescape", forceescape},
    {"safe", safe},
    {"format", format},
    {"int", to_int},
    {"float", to_float},
    {"abs", abs_filter},
    {"round", round_filter},
    {"default", default_filter},
    {"d", default_filter},
    {"tojson", tojson},
};

}  // namespace

FilterFn find_text_filter(std::string_view name) { return find_in(kFilters, name); }

}  // namespace narrow::text::jinja

#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {

using Flavor = SeqObj::Flavor;
using Op = Expr::Op;

namespace {

const char* symbol(Op op) {
  switch (op) {
    case Op::kAdd:
      return "+";
    case Op::kSub:
      return "-";
    case Op::kMul:
      return "*";
    case Op::kDiv:
      return "/";
    case Op::kFloorDiv:
      return "//";
    case Op::kMod:
      return "%";
    default:
      return "**";
  }
}

[[noreturn]] void overflow() { fail("an integer result exceeds 64 bits"); }

std::int64_t int_power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value int_operator(Op op, std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &r)) overflow();
      return Value::integer(r);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &r)) overflow();
      return Value::integer(r);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &r)) overflow();
      return Value::integer(r);
    case Op::kFloorDiv:
    case Op::kMod: {
      if (b == 0) fail("division by zero");
      if (b == -1) {  // INT64_MIN / -1 has no 64-bit result
        if (op == Op::kMod) return Value::integer(0);
        if (__builtin_sub_overflow(std::int64_t{0}, a, &r)) overflow();
        return Value::integer(r);
      }
      const bool adjust = a % b != 0 && (a % b < 0) != (b < 0);
      return Value::integer(op == Op::kMod ? a % b + (adjust ? b : 0) : a / b - (adjust ? 1 : 0));
    }
    case Op::kDiv:
      if (b == 0) fail("division by zero");
      return Value::real(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    default:
      if (b >= 0) return Value::integer(int_power(a, b));
      if (a == 0) fail("zero cannot be raised to a negative power");
      return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
}

Value float_operator(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value::real(a + b);
    case Op::kSub:
      return Value::real(a - b);
    case Op::kMul:
      return Value::real(a * b);
    case Op::kPow: {
      if (a == 0 && b < 0) fail("zero cannot be raised to a negative power");
      const double r = std::pow(a, b);
      if (std::isnan(r) && !std::isnan(a) && !std::isnan(b)) fail("a complex number would result");
      if (std::isinf(r) && !std::isinf(a) && !std::isinf(b)) fail("a float result is too large");
      return Value::real(r);
    }
    default:
      break;
  }
  if (b == 0) fail("division by zero");
  if (op == Op::kDiv) return Value::real(a / b);
  double mod = std::fmod(a, b);
  if (mod != 0 && (b < 0) != (mod < 0)) mod += b;
  if (mod == 0) mod = std::copysign(0.0, b);
  if (op == Op::kMod) return Value::real(mod);
  double floor = std::floor((a - mod) / b);
  if ((a - mod) / b - floor > 0.5) floor += 1;
  return Value::real(floor);
}

std::string escape(std::string_view s) {
  std::string out;
  for (char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Value add_strings(const Value& a, const Value& b, Budget& budget) {
  budget.bytes(a.text().size() + b.text().size());
  if (a.is_markup() == b.is_markup()) return Value::str(a.text() + b.text(), a.is_markup());
  budget.bytes(5 * (a.text().size() + b.text().size()));
  return Value::str(
      (a.is_markup() ? a.text() : escape(a.text())) + (b.is_markup() ? b.text() : escape(b.text())), true);
}

Value repeat(const Value& v, std::int64_t times, Budget& budget) {
  const auto n = static_cast<std::uint64_t>(std::max<std::int64_t>(times, 0));
  if (v.is_str()) {
    budget.bytes(n, v.text().size());
    std::string out;
    if (!v.text().empty()) {
      budget.step(n);
      for (std::uint64_t i = 0; i < n; ++i) out += v.text();
    }
    return Value::str(std::move(out), v.is_markup());
  }
  const Values& items = v.seq().items;
  budget.bytes(n, items.size() * kValueBytes);
  Values out;
  for (std::uint64_t i = 0; i < n && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return make_seq(v.seq().flavor, std::move(out));
}

}  // namespace

Value binary_operator(Op op, const Value& a, const Value& b, Budget& budget) {
  if (op == Op::kMod && a.is_str()) return Value::str(percent_format(a.text(), b, budget), a.is_markup());
  if (a.is_undefined()) fail("{}", a.undefined_reason());
  if (b.is_undefined()) fail("{}", b.undefined_reason());
  if (a.is_integral() && b.is_integral()) return int_operator(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return float_operator(op, a.as_float(), b.as_float());
  if (op == Op::kAdd) {
    if (a.is_str() && b.is_str()) return add_strings(a, b, budget);
    if (is_list_or_tuple(a) && is_list_or_tuple(b) && a.seq().flavor == b.seq().flavor) {
      Values items = a.seq().items;
      budget.bytes(items.size() + b.seq().items.size(), kValueBytes);
      budget.step(items.size() + b.seq().items.size());
      items.insert(items.end(), b.seq().items.begin(), b.seq().items.end());
      return make_seq(a.seq().flavor, std::move(items));
    }
  }
  if (op == Op::kMul) {
    if ((a.is_str() || is_list_or_tuple(a)) && b.is_integral()) return repeat(a, b.as_int(), budget);
    if ((b.is_str() || is_list_or_tuple(b)) && a.is_integral()) return repeat(b, a.as_int(), budget);
  }
  fail("'{}' does not go with {} and {}", symbol(op), type_name(a), type_name(b));
}

Value unary_operator(bool negative, const Value& v) {
  if (v.is_undefined()) fail("{}", v.undefined_reason());
  if (v.is_integral()) return negative ? int_operator(Op::kSub, 0, v.as_int()) : Value::integer(v.as_int());
  if (v.is(Kind::kFloat)) return Value::real(negative ? -v.as_float() : v.as_float());
  fail("unary '{}' does not go with {}", negative ? '-' : '+', type_name(v));
}

bool compare(Expr::Compare op, const Value& a, const Value& b, Budget& budget) {
  using Compare = Expr::Compare;
  switch (op) {
    case Compare::kEq:
      return equal(a, b, budget);
    case Compare::kNe:
      return !equal(a, b, budget);
    case Compare::kLt:
      return less(a, b, budget);
    case Compare::kGt:
      return less(b, a, budget);
    case Compare::kLe:
    case Compare::kGe: {
      const Value &x = op == Compare::kLe ? a : b, &y = op == Compare::kLe ? b : a;
      return less(x, y, budget) || equal(x, y, budget);
    }
    case Compare::kIn:
      return contains(b, a, budget);
    default:
      return !contains(b, a, budget);
  }
}

namespace {

std::int64_t slice_index(const Value& v) {
  if (v.is_undefined()) fail("{}", v.undefined_reason());
  if (!v.is_integral()) fail("a slice's bounds must be integers or none, not {}", type_name(v));
  return v.as_int();
}

// The indices that a Python slice of `n` elements selects.
std::vector<std::size_t> slice_indices(std::int64_t n, const Value& start, const Value& stop,
                                       const Value& step, Budget& budget) {
  const std::int64_t by = step.is_none() ? 1 : slice_index(step);
  if (by == 0) fail("a slice's step cannot be zero");
  const std::int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
  const auto bound = [&](const Value& v, std::int64_t otherwise) {
    if (v.is_none()) return otherwise;
    std::int64_t i = slice_index(v);
    if (i < 0) i = i < -n ? low : i + n;
    return std::clamp(i, low, high);
  };
  const std::int64_t from = bound(start, by < 0 ? high : low), to = bound(stop, by < 0 ? low : high);
  std::vector<std::size_t> out;
  for (std::int64_t i = from; by > 0 ? i < to : i > to;) {
    budget.step();
    out.push_back(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  return out;
}

}  // namespace

Value slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget) {
  if (object.is_undefined()) fail("{}", object.undefined_reason());
  if (object.is_str()) {
    const std::string& s = object.text();
    std::vector<std::size_t> offsets;  // of each character, and the end
    budget.bytes(s.size(), sizeof(std::size_t));
    budget.step(s.size() / 16);
    for (std::size_t pos = 0; pos < s.size();) {
      offsets.push_back(pos);
      next_code_point(s, pos);
    }
    const auto n = static_cast<std::int64_t>(offsets.size());
    offsets.push_back(s.size());
    std::string out;
    for (std::size_t i : slice_indices(n, start, stop, step, budget)) {
      out.append(s, offsets[i], offsets[i + 1] - offsets[i]);
    }
    budget.bytes(out.size());
    return Value::str(std::move(out), object.is_markup());
  }
  if (!is_list_or_tuple(object) && !is_flavor(object, Flavor::kRange)) {
    fail("a value of type {} cannot be sliced", type_name(object));
  }
  const Values& items = object.seq().items;
  Values out;
  for (std::size_t i : slice_indices(static_cast<std::int64_t>(items.size()), start, stop, step, budget)) {
    out.push_back(items[i]);
  }
  budget.bytes(out.size(), kValueBytes);
  return make_seq(object.seq().flavor, std::move(out), object.seq().label);
}

}  // namespace narrow::text::jinja

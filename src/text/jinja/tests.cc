// Tests: `value is name`.
#include <algorithm>

#include "text/jinja/builtins.h"

namespace narrow::text::jinja {
namespace {

using Op = Expr::Op;
using Compare = Expr::Compare;

void none_given(const Args& args) { const Bound b("the test", args, {}); }

template <Kind kind>
bool is_kind(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is(kind);
}

bool defined(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return !v.is_undefined();
}
template <bool wanted>
bool is_bool(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is(Kind::kBool) && v.as_bool() == wanted;
}
bool number(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is_number();
}
bool sequence(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  using Flavor = SeqObj::Flavor;
  return v.is_undefined() || v.is_str() || v.is(Kind::kDict) || is_list_or_tuple(v) ||
         is_flavor(v, Flavor::kRange);
}
bool iterable(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return is_iterable(v);
}
bool callable(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is_undefined() || v.is(Kind::kFunction) || v.is(Kind::kMacro) || v.is(Kind::kLoop);
}
bool escaped(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is_markup();
}

template <int remainder>
bool has_parity(Interpreter& in, const Value& v, const Args& args) {
  none_given(args);
  const Value r = binary_operator(Op::kMod, v, Value::integer(2), in.budget());
  return equal(r, Value::integer(remainder), in.budget());
}
bool divisibleby(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("divisibleby", args, {"num"}, 1);
  return equal(binary_operator(Op::kMod, v, b.at(0), in.budget()), Value::integer(0), in.budget());
}

template <Compare op>
bool compares(Interpreter& in, const Value& v, const Args& args) {
  if (!args.named.empty()) fail("a comparing test takes no named arguments");
  const Bound b("the test", args, {"other"}, 1);
  return compare(op, v, b.at(0), in.budget());
}
bool is_in(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("in", args, {"seq"}, 1);
  return contains(b.at(0), v, in.budget());
}
bool sameas(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("sameas", args, {"other"}, 1);
  const Value& o = b.at(0);
  if (v.kind() != o.kind()) return false;
  if (v.identity() != nullptr && v.identity() == o.identity()) return true;
  return v.identity() == nullptr && !v.is(Kind::kFloat) && equal(v, o, in.budget());
}

bool lower(Interpreter& in, const Value& v, const Args& args) {
  none_given(args);
  return has_lower_only(in.str(v));
}
bool upper(Interpreter& in, const Value& v, const Args& args) {
  none_given(args);
  return has_upper_only(in.str(v));
}
bool filter_exists(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is_str() && find_filter(v.text()) != nullptr;
}
bool test_exists(Interpreter&, const Value& v, const Args& args) {
  none_given(args);
  return v.is_str() && find_test(v.text()) != nullptr;
}

constexpr Named<TestFn> kTests[] = {
    {"defined", defined},
    {"undefined", is_kind<Kind::kUndefined>},
    {"none", is_kind<Kind::kNone>},
    {"boolean", is_kind<Kind::kBool>},
    {"true", is_bool<true>},
    {"false", is_bool<false>},
    {"integer", is_kind<Kind::kInt>},
    {"float", is_kind<Kind::kFloat>},
    {"number", number},
    {"string", is_kind<Kind::kStr>},
    {"mapping", is_kind<Kind::kDict>},
    {"sequence", sequence},
    {"iterable", iterable},
    {"callable", callable},
    {"escaped", escaped},
    {"odd", has_parity<1>},
    {"even", has_parity<0>},
    {"divisibleby", divisibleby},
    {"in", is_in},
    {"sameas", sameas},
    {"lower", lower},
    {"upper", upper},
    {"filter", filter_exists},
    {"test", test_exists},
    {"==", compares<Compare::kEq>},
    {"eq", compares<Compare::kEq>},
    {"equalto", compares<Compare::kEq>},
    {"!=", compares<Compare::kNe>},
    {"ne", compares<Compare::kNe>},
    {"<", compares<Compare::kLt>},
    {"lt", compares<Compare::kLt>},
    {"lessthan", compares<Compare::kLt>},
    {"<=", compares<Compare::kLe>},
    {"le", compares<Compare::kLe>},
    {">", compares<Compare::kGt>},
    {"gt", compares<Compare::kGt>},
    {"greaterthan", compares<Compare::kGt>},
    {">=", compares<Compare::kGe>},
    {"ge", compares<Compare::kGe>},
};

}  // namespace

TestFn find_test(std::string_view name) { return find_in(kTests, name); }

bool Interpreter::test(const std::string& name, const Value& value, const Args& args) {
  budget_.step();
  const TestFn fn = find_test(name);
  if (fn == nullptr) fail("there is no test named '{}'", name);
  return fn(*this, value, args);
}

}  // namespace narrow::text::jinja

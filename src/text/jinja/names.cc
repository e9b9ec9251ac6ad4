// The check of filter and test names before anything runs, and short texts of expressions for messages.
#include "text/jinja/builtins.h"

namespace narrow::text::jinja {
namespace {

using Op = Expr::Op;

// `soft`: under a condition, where jinja2 leaves unknown names to the moment that they run.
void check(const Expr* e, bool soft) {
  if (e == nullptr) return;
  soft = soft || e->op == Op::kCond;
  if (!soft && e->op == Op::kFilter && find_filter(e->name) == nullptr) {
    throw TemplateError{fmt::format("there is no filter named '{}'", e->name), e->line, e->column};
  }
  if (!soft && e->op == Op::kTest && find_test(e->name) == nullptr) {
    throw TemplateError{fmt::format("there is no test named '{}'", e->name), e->line, e->column};
  }
  for (const ExprPtr& kid : e->kids) check(kid.get(), soft);
  if (e->args == nullptr) return;
  for (const ExprPtr& a : e->args->pos) check(a.get(), soft);
  for (const auto& a : e->args->named) check(a.second.get(), soft);
  check(e->args->star.get(), soft);
  check(e->args->double_star.get(), soft);
}

void check(const Body& body, bool soft);

void check(const Stmt& s, bool soft) {
  const bool inside = soft || s.op == Stmt::Op::kIf;
  check(s.target.get(), soft);
  check(s.filter.get(), soft);
  for (const ExprPtr& e : s.exprs) check(e.get(), soft);
  for (const ExprPtr& e : s.defaults) check(e.get(), soft);
  for (const auto& [test, body] : s.branches) {
    check(test.get(), inside);
    check(body, inside);
  }
  check(s.body, inside);
  check(s.else_body, inside);
}

void check(const Body& body, bool soft) {
  for (const auto& s : body) check(*s, soft);
}

void append(std::string& out, const Expr& e) {
  if (out.size() > 80) return;
  const auto kid = [&](std::size_t i) {
    if (i < e.kids.size() && e.kids[i] != nullptr) append(out, *e.kids[i]);
  };
  switch (e.op) {
    case Op::kName:
      out += e.name;
      break;
    case Op::kNamespaceRef:
      out += e.name + "." + e.attribute;
      break;
    case Op::kConst:
      if (e.value.is_str()) {
        out += repr_str(std::string_view(e.value.text()).substr(0, 40));
      } else {
        Budget budget(100, 1000);
        append_repr(out, e.value, budget);
      }
      break;
    case Op::kAttr:
      kid(0);
      out += "." + e.attribute;
      break;
    case Op::kItem:
      kid(0);
      out += '[';
      kid(1);
      out += ']';
      break;
    case Op::kSlice:
      kid(0);
      out += "[...]";
      break;
    case Op::kCall:
      kid(0);
      out += "(...)";
      break;
    case Op::kFilter:
      kid(0);
      out += " | " + e.name;
      break;
    case Op::kTest:
      kid(0);
      out += " is " + e.name;
      break;
    case Op::kAdd:
    case Op::kSub:
    case Op::kMul:
    case Op::kDiv:
    case Op::kFloorDiv:
    case Op::kMod:
    case Op::kPow: {
      static constexpr std::string_view kSymbols[] = {" + ", " - ", " * ", " / ", " // ", " % ", " ** "};
      kid(0);
      out += kSymbols[static_cast<std::size_t>(e.op) - static_cast<std::size_t>(Op::kAdd)];
      kid(1);
      break;
    }
    default:
      break;
  }
}

}  // namespace

void check_names(const Body& body) { check(body, false); }

std::string describe(const Expr& e) {
  std::string out;
  append(out, e);
  if (out.size() > 100) out = "..." + out.substr(out.size() - 97);
  return out;
}

}  // namespace narrow::text::jinja

#include "text/jinja/expression_parser.h"

#include <algorithm>

namespace narrow::text::jinja {
namespace {

using Op = Expr::Op;

constexpr int kMaxNesting = 400;
constexpr int kMaxExprDepth = 400;

std::string describe_token(const Token& t) {
  switch (t.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return "'" + t.text + "'";
  }
}

bool is_literal_name(std::string_view n) {
  return n == "true" || n == "false" || n == "none" || n == "True" || n == "False" || n == "None";
}

}  // namespace

ExpressionParser::Guard::Guard(ExpressionParser& p) : parser_(p) {
  if (++p.nesting_ > kMaxNesting) p.error("the template is nested too deep", p.current());
}

void ExpressionParser::error(std::string message, const Token& at) const {
  throw TemplateError{std::move(message), at.line, at.column};
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!is_operator(op)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!is_name(name)) return false;
  next();
  return true;
}

void ExpressionParser::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind)
    error(fmt::format("expected {}, found {}", what, describe_token(current())), current());
  next();
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!skip_operator(op))
    error(fmt::format("expected '{}', found {}", op, describe_token(current())), current());
}

void ExpressionParser::expect_name(std::string_view name) {
  if (!skip_name(name))
    error(fmt::format("expected '{}', found {}", name, describe_token(current())), current());
}

std::string ExpressionParser::take_name() {
  std::string name = current().text;
  expect(TokenKind::kName, "a name");
  return name;
}

void ExpressionParser::check_assignable(const Token& name) const {
  if (is_literal_name(name.text)) error(fmt::format("'{}' cannot be assigned to", name.text), name);
}

ExprPtr ExpressionParser::make(Op op, const Token& at) const {
  auto e = std::make_unique<Expr>();
  e->op = op;
  e->line = at.line;
  e->column = at.column;
  return e;
}

ExprPtr ExpressionParser::finish(ExprPtr e) const {
  const auto add = [&](const ExprPtr& kid) {
    if (kid) e->depth = std::max(e->depth, kid->depth + 1);
  };
  for (const ExprPtr& kid : e->kids) add(kid);
  if (e->args) {
    for (const ExprPtr& kid : e->args->pos) add(kid);
    for (const auto& kid : e->args->named) add(kid.second);
    add(e->args->star);
    add(e->args->double_star);
  }
  if (e->depth > kMaxExprDepth) {
    throw TemplateError{"an expression is nested too deep", e->line, e->column};
  }
  return e;
}

ExprPtr ExpressionParser::unary_node(Op op, const Token& at, ExprPtr kid) const {
  auto e = make(op, at);
  e->kids.push_back(std::move(kid));
  return finish(std::move(e));
}

ExprPtr ExpressionParser::binary(Op op, const Token& at, ExprPtr a, ExprPtr b) const {
  auto e = make(op, at);
  e->kids.push_back(std::move(a));
  e->kids.push_back(std::move(b));
  return finish(std::move(e));
}

ExprPtr ExpressionParser::expression() { return conditional(); }

ExprPtr ExpressionParser::conditional() {
  const Guard guard(*this);
  ExprPtr e = logical_or();
  while (is_name("if")) {
    auto cond = make(Op::kCond, current());
    next();
    cond->kids.push_back(logical_or());
    cond->kids.push_back(std::move(e));
    cond->kids.push_back(skip_name("else") ? conditional() : nullptr);
    e = finish(std::move(cond));
  }
  return e;
}

ExprPtr ExpressionParser::logical_or() {
  ExprPtr left = logical_and();
  while (is_name("or")) {
    const Token at = current();
    next();
    left = binary(Op::kOr, at, std::move(left), logical_and());
  }
  return left;
}

ExprPtr ExpressionParser::logical_and() {
  ExprPtr left = logical_not();
  while (is_name("and")) {
    const Token at = current();
    next();
    left = binary(Op::kAnd, at, std::move(left), logical_not());
  }
  return left;
}

ExprPtr ExpressionParser::logical_not() {
  if (!is_name("not")) return compare();
  const Guard guard(*this);
  const Token at = current();
  next();
  return unary_node(Op::kNot, at, logical_not());
}

ExprPtr ExpressionParser::compare() {
  using Compare = Expr::Compare;
  const Token at = current();
  ExprPtr first = sum();
  ExprPtr e;
  while (true) {
    static constexpr std::pair<std::string_view, Compare> kOperators[] = {
        {"==", Compare::kEq}, {"!=", Compare::kNe}, {"<", Compare::kLt},
        {"<=", Compare::kLe}, {">", Compare::kGt},  {">=", Compare::kGe}};
    Compare op = Compare::kNotIn;
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& o) { return is_operator(o.first); });
    if (found != std::end(kOperators)) {
      op = found->second;
      next();
    } else if (skip_name("in")) {
      op = Compare::kIn;
    } else if (is_name("not") && look().kind == TokenKind::kName && look().text == "in") {
      next();
      next();
    } else {
      break;
    }
    if (!e) {
      e = make(Op::kCompare, at);
      e->kids.push_back(std::move(first));
    }
    e->compares.push_back(op);
    e->kids.push_back(sum());
  }
  return e ? finish(std::move(e)) : std::move(first);
}

ExprPtr ExpressionParser::sum() {
  ExprPtr left = concat();
  while (is_operator("+") || is_operator("-")) {
    const Token at = current();
    next();
    left = binary(at.text == "+" ? Op::kAdd : Op::kSub, at, std::move(left), concat());
  }
  return left;
}

ExprPtr ExpressionParser::concat() {
  ExprPtr first = product();
  if (!is_operator("~")) return first;
  auto e = make(Op::kConcat, current());
  e->kids.push_back(std::move(first));
  while (skip_operator("~")) e->kids.push_back(product());
  return finish(std::move(e));
}

ExprPtr ExpressionParser::product() {
  ExprPtr left = power();
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    const Token at = current();
    next();
    const Op op = at.text == "*"    ? Op::kMul
                  : at.text == "/"  ? Op::kDiv
                  : at.text == "//" ? Op::kFloorDiv
                                    : Op::kMod;
    left = binary(op, at, std::move(left), power());
  }
  return left;
}

ExprPtr ExpressionParser::power() {
  ExprPtr left = unary(true);
  while (is_operator("**")) {
    const Token at = current();
    next();
    left = binary(Op::kPow, at, std::move(left), unary(true));
  }
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filter) {
  const Guard guard(*this);
  const Token at = current();
  ExprPtr e;
  if (skip_operator("-")) {
    e = unary_node(Op::kNeg, at, unary(false));
  } else if (skip_operator("+")) {
    e = unary_node(Op::kPos, at, unary(false));
  } else {
    e = primary(false);
  }
  e = postfix(std::move(e));
  return with_filter ? filter_expr(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::primary(bool with_namespace) {
  const Token t = current();
  switch (t.kind) {
    case TokenKind::kName: {
      next();
      if (is_literal_name(t.text)) {
        auto e = make(Op::kConst, t);
        const bool none = t.text == "none" || t.text == "None";
        e->value = none ? Value::none() : Value::boolean(t.text == "true" || t.text == "True");
        return e;
      }
      if (with_namespace && skip_operator(".")) {
        auto e = make(Op::kNamespaceRef, t);
        e->name = t.text;
        e->attribute = take_name();
        return e;
      }
      auto e = make(Op::kName, t);
      e->name = t.text;
      names_read_.push_back(t.text);
      return e;
    }
    case TokenKind::kString: {
      std::string text;
      for (; current().kind == TokenKind::kString; next()) text += current().text;
      auto e = make(Op::kConst, t);
      e->value = Value::str(std::move(text));
      return e;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      next();
      auto e = make(Op::kConst, t);
      e->value = t.number;
      return e;
    }
    default:
      break;
  }
  if (skip_operator("(")) {
    ExprPtr e = tuple(TupleMode::kParenthesized);
    expect_operator(")");
    return e;
  }
  if (is_operator("[")) return list();
  if (is_operator("{")) return dict();
  error("unexpected " + describe_token(t), t);
}

bool ExpressionParser::tuple_ends(TupleMode mode) const {
  const TokenKind k = current().kind;
  if (k == TokenKind::kVariableEnd || k == TokenKind::kBlockEnd || is_operator(")")) return true;
  return (mode == TupleMode::kForTarget && is_name("in")) ||
         (mode == TupleMode::kForIterable && is_name("recursive"));
}

ExprPtr ExpressionParser::tuple(TupleMode mode) {
  const Token at = current();
  std::vector<ExprPtr> parts;
  bool is_tuple = false;
  while (true) {
    if (!parts.empty()) expect_operator(",");
    if (tuple_ends(mode)) break;
    switch (mode) {
      case TupleMode::kTarget:
      case TupleMode::kForTarget:
        parts.push_back(primary(false));
        break;
      case TupleMode::kTargetWithNamespace:
        parts.push_back(primary(true));
        break;
      case TupleMode::kNoConditional:
      case TupleMode::kForIterable:
        parts.push_back(logical_or());
        break;
      default:
        parts.push_back(expression());
    }
    if (!is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!parts.empty()) return std::move(parts[0]);
    if (mode != TupleMode::kParenthesized) {
      error("expected an expression, found " + describe_token(current()), current());
    }
  }
  auto e = make(Op::kTuple, at);
  e->kids = std::move(parts);
  return finish(std::move(e));
}

void ExpressionParser::check_target(const Expr& e, const Token& at) const {
  if (e.op == Op::kName || e.op == Op::kNamespaceRef) return;
  if (e.op != Op::kTuple) error("this cannot be assigned to", at);
  for (const ExprPtr& kid : e.kids) check_target(*kid, at);
}

ExprPtr ExpressionParser::assign_target(TupleMode mode) {
  const Token at = current();
  const std::size_t names = names_read_.size();
  ExprPtr e = tuple(mode);
  names_read_.resize(names);  // written, not read
  check_target(*e, at);
  return e;
}

ExprPtr ExpressionParser::list() {
  auto e = make(Op::kList, current());
  expect_operator("[");
  while (!is_operator("]")) {
    if (!e->kids.empty()) expect_operator(",");
    if (is_operator("]")) break;
    e->kids.push_back(expression());
  }
  expect_operator("]");
  return finish(std::move(e));
}

ExprPtr ExpressionParser::dict() {
  auto e = make(Op::kDict, current());
  expect_operator("{");
  while (!is_operator("}")) {
    if (!e->kids.empty()) expect_operator(",");
    if (is_operator("}")) break;
    e->kids.push_back(expression());
    expect_operator(":");
    e->kids.push_back(expression());
  }
  expect_operator("}");
  return finish(std::move(e));
}

ExprPtr ExpressionParser::postfix(ExprPtr e) {
  while (true) {
    if (is_operator(".") || is_operator("[")) {
      e = subscript(std::move(e));
    } else if (is_operator("(")) {
      e = call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::filter_expr(ExprPtr e) {
  while (true) {
    if (is_operator("|")) {
      e = filters(std::move(e), false);
    } else if (is_name("is")) {
      e = test(std::move(e));
    } else if (is_operator("(")) {
      e = call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr object) {
  const Token at = current();
  next();
  if (at.text == ".") {
    const Token name = current();
    next();
    if (name.kind == TokenKind::kName) {
      auto e = unary_node(Op::kAttr, at, std::move(object));
      e->attribute = name.text;
      return e;
    }
    if (name.kind != TokenKind::kInteger) error("expected a name or number after '.'", name);
    auto index = make(Op::kConst, name);
    index->value = name.number;
    return binary(Op::kItem, at, std::move(object), std::move(index));
  }
  std::vector<ExprPtr> bounds;
  bool slice = false;
  while (!slice && !is_operator("]")) {
    if (!bounds.empty()) expect_operator(",");
    ExprPtr first = is_operator(":") ? nullptr : expression();
    slice = is_operator(":");
    if (slice && !bounds.empty()) error("a slice inside a list of indices is not supported", at);
    bounds.push_back(std::move(first));
  }
  if (slice) {
    const auto bound = [&]() -> ExprPtr {
      return is_operator(":") || is_operator("]") || is_operator(",") ? nullptr : expression();
    };
    expect_operator(":");
    bounds.push_back(bound());
    bounds.push_back(skip_operator(":") ? bound() : nullptr);
    auto e = make(Op::kSlice, at);
    e->kids.push_back(std::move(object));
    for (ExprPtr& b : bounds) e->kids.push_back(std::move(b));
    expect_operator("]");
    return finish(std::move(e));
  }
  expect_operator("]");
  if (bounds.size() == 1) return binary(Op::kItem, at, std::move(object), std::move(bounds[0]));
  auto index = make(Op::kTuple, at);
  index->kids = std::move(bounds);
  return binary(Op::kItem, at, std::move(object), finish(std::move(index)));
}

std::unique_ptr<CallArgs> ExpressionParser::call_args() {
  const Token at = current();
  auto args = std::make_unique<CallArgs>();
  const auto ensure = [&](bool ok) {
    if (!ok) error("these arguments are out of order", at);
  };
  expect_operator("(");
  bool first = true;
  while (!is_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    first = false;
    if (skip_operator("*")) {
      ensure(!args->star && !args->double_star);
      args->star = expression();
    } else if (skip_operator("**")) {
      ensure(!args->double_star);
      args->double_star = expression();
    } else if (current().kind == TokenKind::kName && look().kind == TokenKind::kOperator &&
               look().text == "=") {
      ensure(!args->double_star);
      const Token name = current();
      next();
      next();
      const bool twice = std::any_of(args->named.begin(), args->named.end(),
                                     [&](const auto& n) { return n.first == name.text; });
      if (twice) error(fmt::format("argument '{}' is given twice", name.text), name);
      args->named.emplace_back(name.text, expression());
    } else {
      ensure(!args->star && !args->double_star && args->named.empty());
      args->pos.push_back(expression());
    }
  }
  expect_operator(")");
  return args;
}

ExprPtr ExpressionParser::call(ExprPtr callee) {
  auto e = make(Op::kCall, current());
  e->kids.push_back(std::move(callee));
  e->args = call_args();
  return finish(std::move(e));
}

std::string ExpressionParser::dotted_name() {
  std::string name = take_name();
  while (skip_operator(".")) name += "." + take_name();
  return name;
}

ExprPtr ExpressionParser::filters(ExprPtr input, bool start_inline) {
  while (start_inline || is_operator("|")) {
    if (!start_inline) next();
    start_inline = false;
    auto e = make(Op::kFilter, current());
    e->name = dotted_name();
    e->args = is_operator("(") ? call_args() : std::make_unique<CallArgs>();
    e->kids.push_back(std::move(input));
    input = finish(std::move(e));
  }
  return input;
}

ExprPtr ExpressionParser::test(ExprPtr value) {
  const Token at = current();
  next();
  const bool negated = skip_name("not");
  auto e = make(Op::kTest, at);
  e->kids.push_back(std::move(value));
  e->name = dotted_name();
  e->args = std::make_unique<CallArgs>();
  const TokenKind k = current().kind;
  const bool value_follows = k == TokenKind::kName || k == TokenKind::kString || k == TokenKind::kInteger ||
                             k == TokenKind::kFloat || is_operator("[") || is_operator("{");
  if (is_operator("(")) {
    e->args = call_args();
  } else if (value_follows && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) error("tests cannot be chained with 'is'", current());
    const Guard guard(*this);
    e->args->pos.push_back(postfix(primary(false)));
  }
  ExprPtr result = finish(std::move(e));
  return negated ? unary_node(Op::kNot, at, std::move(result)) : std::move(result);
}

}  // namespace narrow::text::jinja

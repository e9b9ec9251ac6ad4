#include "text/jinja/parser.h"

#include <algorithm>
#include <array>

#include "text/jinja/expression_parser.h"

namespace narrow::text::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body parse() { return statements_until({}, {}); }

 private:
  // Statements up to a tag in `ends`, whose name is left as the current token. `open` names the tag that
  // needs it.
  Body statements_until(Names ends, std::string_view open) {
    Body body;
    while (true) {
      const Token& t = current();
      if (t.kind == TokenKind::kEnd) {
        if (ends.size() == 0) return body;
        error(fmt::format("'{}' is not closed: expected '{}'", open, *(ends.end() - 1)), t);
      }
      if (t.kind == TokenKind::kData) {
        auto s = make_stmt(Stmt::Op::kText, t);
        s->text = t.text;
        next();
        body.push_back(std::move(s));
      } else if (t.kind == TokenKind::kVariableBegin) {
        next();
        auto s = make_stmt(Stmt::Op::kPrint, t);
        s->exprs.push_back(tuple(TupleMode::kFull));
        expect(TokenKind::kVariableEnd, "'}}'");
        body.push_back(std::move(s));
      } else {
        next();  // a block begins: nothing else follows data and variables
        const Token& name = current();
        if (name.kind == TokenKind::kName && std::find(ends.begin(), ends.end(), name.text) != ends.end())
          return body;
        body.push_back(statement());
        expect(TokenKind::kBlockEnd, "'%}'");
      }
    }
  }

  // ":"? "%}" body, up to one of `ends`.
  Body body_until(Names ends, std::string_view open) {
    skip_operator(":");
    expect(TokenKind::kBlockEnd, "'%}'");
    return statements_until(ends, open);
  }
  Body body_to(std::string_view end, std::string_view open) {
    Body b = body_until({end}, open);
    next();
    return b;
  }

  static std::unique_ptr<Stmt> make_stmt(Stmt::Op op, const Token& t) {
    auto s = std::make_unique<Stmt>();
    s->op = op;
    s->line = t.line;
    s->column = t.column;
    return s;
  }

  std::unique_ptr<Stmt> statement() {
    const Token t = current();
    if (t.kind != TokenKind::kName) error("expected a tag's name", t);
    const Guard guard(*this);
    next();
    const std::string& n = t.text;
    if (n == "set") return set(t);
    if (n == "for") return for_loop(t);
    if (n == "if") return if_block(t);
    if (n == "macro") return macro(t);
    if (n == "call") return call_block(t);
    if (n == "filter") {
      auto s = make_stmt(Stmt::Op::kFilterBlock, t);
      s->filter = filters(nullptr, true);
      s->body = body_to("endfilter", "filter");
      return s;
    }
    if (n == "with") return with(t);
    if (n == "print") {
      auto s = make_stmt(Stmt::Op::kPrint, t);
      while (current().kind != TokenKind::kBlockEnd) {
        if (!s->exprs.empty()) expect_operator(",");
        s->exprs.push_back(expression());
      }
      return s;
    }
    if (n == "generation") {
      auto s = make_stmt(Stmt::Op::kScope, t);
      s->body = body_to("endgeneration", "generation");
      return s;
    }
    if (n == "block") return block(t);
    if (n == "break" || n == "continue") {
      if (loops_ == 0) error(fmt::format("'{}' outside a loop", n), t);
      return make_stmt(n == "break" ? Stmt::Op::kBreak : Stmt::Op::kContinue, t);
    }
    if (n == "extends" || n == "include" || n == "import" || n == "from") {
      error(fmt::format("'{}' is not possible: a chat template is a single file", n), t);
    }
    error(fmt::format("unknown tag '{}'", n), t);
  }

  std::unique_ptr<Stmt> set(const Token& t) {
    auto s = make_stmt(Stmt::Op::kSet, t);
    s->target = assign_target(TupleMode::kTargetWithNamespace);
    if (skip_operator("=")) {
      s->exprs.push_back(tuple(TupleMode::kFull));
      return s;
    }
    s->op = Stmt::Op::kSetBlock;
    s->filter = filters(nullptr, false);
    s->body = body_to("endset", "set");
    return s;
  }

  std::unique_ptr<Stmt> for_loop(const Token& t) {
    auto s = make_stmt(Stmt::Op::kFor, t);
    s->target = assign_target(TupleMode::kForTarget);
    expect_name("in");
    s->exprs.push_back(tuple(TupleMode::kForIterable));
    if (skip_name("if")) s->filter = expression();
    s->recursive = skip_name("recursive");
    ++loops_;
    s->body = body_until({"else", "endfor"}, "for");
    --loops_;
    if (take_name() == "else") s->else_body = body_to("endfor", "for");
    return s;
  }

  std::unique_ptr<Stmt> if_block(const Token& t) {
    auto s = make_stmt(Stmt::Op::kIf, t);
    while (true) {
      ExprPtr test = tuple(TupleMode::kNoConditional);
      Body body = body_until({"elif", "else", "endif"}, "if");
      s->branches.emplace_back(std::move(test), std::move(body));
      const std::string end = take_name();
      if (end == "elif") continue;
      if (end == "else") s->else_body = body_to("endif", "if");
      return s;
    }
  }

  void signature(Stmt& s) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (!s.params.empty()) expect_operator(",");
      const Token t = current();
      if (t.kind != TokenKind::kName) error("expected a parameter's name", t);
      next();
      check_assignable(t);
      if (skip_operator("=")) {
        s.defaults.push_back(expression());
      } else if (!s.defaults.empty()) {
        error("a parameter without default follows one with default", t);
      }
      s.params.push_back(t.text);
    }
    expect_operator(")");
  }

  // The body of a macro or caller; notes which of the special names it reads.
  void macro_body(Stmt& s, std::string_view end, std::string_view open) {
    const int outer_loops = std::exchange(loops_, 0);
    const std::size_t first = names_read().size();
    s.body = body_to(end, open);
    const auto reads = [&](std::string_view name) {
      return std::find(names_read().begin() + static_cast<std::ptrdiff_t>(first), names_read().end(), name) !=
             names_read().end();
    };
    s.uses_caller = reads("caller");
    s.uses_varargs = reads("varargs");
    s.uses_kwargs = reads("kwargs");
    loops_ = outer_loops;
  }

  std::unique_ptr<Stmt> macro(const Token& t) {
    auto s = make_stmt(Stmt::Op::kMacro, t);
    const Token name = current();
    if (name.kind != TokenKind::kName) error("expected the macro's name", name);
    next();
    check_assignable(name);
    s->text = name.text;
    signature(*s);
    macro_body(*s, "endmacro", "macro");
    return s;
  }

  std::unique_ptr<Stmt> call_block(const Token& t) {
    auto s = make_stmt(Stmt::Op::kCallBlock, t);
    s->text = "caller";
    if (is_operator("(")) signature(*s);
    s->exprs.push_back(expression());
    if (s->exprs[0]->op != Expr::Op::kCall) error("'call' needs a call, e.g. {% call box() %}", t);
    macro_body(*s, "endcall", "call");
    return s;
  }

  std::unique_ptr<Stmt> with(const Token& t) {
    auto s = make_stmt(Stmt::Op::kWith, t);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!s->targets.empty()) expect_operator(",");
      s->targets.push_back(assign_target(TupleMode::kTarget));
      expect_operator("=");
      s->exprs.push_back(expression());
    }
    s->body = body_to("endwith", "with");
    return s;
  }

  std::unique_ptr<Stmt> block(const Token& t) {
    auto s = make_stmt(Stmt::Op::kScope, t);
    const std::string name = take_name();
    if (std::find(blocks_.begin(), blocks_.end(), name) != blocks_.end()) {
      error(fmt::format("block '{}' is defined twice", name), t);
    }
    blocks_.push_back(name);
    s->at_root = !skip_name("scoped");
    s->body = body_to("endblock", "block");
    skip_name(name);
    return s;
  }

  int loops_ = 0;
  std::vector<std::string> blocks_;
};

}  // namespace

Body parse_template(std::string_view source) { return TemplateParser(tokenize(source)).parse(); }

}  // namespace narrow::text::jinja

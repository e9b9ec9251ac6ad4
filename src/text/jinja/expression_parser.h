// The expression half of the parser.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace narrow::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  // Where a comma-separated list without brackets may stand, and what its parts may be.
  enum class TupleMode {
    kFull,                 // any expressions
    kNoConditional,        // no `a if b` (the test of an if)
    kForIterable,          // the same, ends at `recursive` too
    kParenthesized,        // may be empty
    kTarget,               // names to assign to
    kForTarget,            // the same, ends at `in`
    kTargetWithNamespace,  // the same, `ns.attribute` too
  };

  // Counts nesting of the recursive descent, so that hostile input ends in an error and not in a full stack.
  class Guard {
   public:
    explicit Guard(ExpressionParser& p);
    ~Guard() { --parser_.nesting_; }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    ExpressionParser& parser_;
  };

  ExprPtr expression();
  ExprPtr tuple(TupleMode mode);
  ExprPtr assign_target(TupleMode mode);
  ExprPtr filters(ExprPtr input, bool start_inline);  // `| a | b(c)`; null when there is none

  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (pos_ + 1 < tokens_.size()) ++pos_;
  }
  bool is_operator(std::string_view op) const {
    return current().kind == TokenKind::kOperator && current().text == op;
  }
  bool is_name(std::string_view name) const {
    return current().kind == TokenKind::kName && current().text == name;
  }
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect(TokenKind kind, std::string_view what);
  void expect_operator(std::string_view op);
  void expect_name(std::string_view name);
  std::string take_name();
  void check_assignable(const Token& name) const;
  [[noreturn]] void error(std::string message, const Token& at) const;
  // All names read so far, in order.
  const std::vector<std::string>& names_read() const { return names_read_; }

 private:
  ExprPtr make(Expr::Op op, const Token& at) const;
  ExprPtr finish(ExprPtr e) const;  // sets and checks the depth
  ExprPtr unary_node(Expr::Op op, const Token& at, ExprPtr kid) const;
  ExprPtr binary(Expr::Op op, const Token& at, ExprPtr a, ExprPtr b) const;
  ExprPtr conditional();
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr compare();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filter);
  ExprPtr primary(bool with_namespace);
  ExprPtr list();
  ExprPtr dict();
  ExprPtr postfix(ExprPtr e);
  ExprPtr filter_expr(ExprPtr e);
  ExprPtr subscript(ExprPtr e);
  ExprPtr call(ExprPtr e);
  ExprPtr test(ExprPtr e);
  std::unique_ptr<CallArgs> call_args();
  std::string dotted_name();
  bool tuple_ends(TupleMode mode) const;
  void check_target(const Expr& e, const Token& at) const;

  std::vector<Token> tokens_;
  std::vector<std::string> names_read_;
  std::size_t pos_ = 0;
  int nesting_ = 0;
};

}  // namespace narrow::text::jinja

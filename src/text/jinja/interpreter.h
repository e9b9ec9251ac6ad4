// Runs a parsed template.
//
// Scopes follow Jinja: `set` inside a loop, macro, block set or `with` stays there; `if` has no scope of its
// own. Macros see the variables of the place that defines them, as they are when called.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace narrow::text::jinja {

struct Limits {
  std::uint64_t steps = 20'000'000;         // nodes visited and elements touched
  std::uint64_t bytes = 256 * 1024 * 1024;  // of text and values made, output included
  int depth = 1000;                         // nested evaluation, macros included
};

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> vars;
  const Value* find_here(std::string_view name) const;
  void set(const std::string& name, Value value);
};

struct MacroObj {
  std::string name;
  const Stmt* node = nullptr;  // parameters and body
  std::shared_ptr<Scope> scope;
};

// The `loop` variable. Items are pulled one by one, since a loop's condition may depend on what its body did.
struct LoopObj {
  Values items;  // pulled so far
  std::size_t index0 = 0;
  int depth0 = 0;              // of recursive loops
  int depth = 1;               // as a value
  const Stmt* node = nullptr;  // null once the loop is over
  std::function<std::optional<Value>()> pull;
  std::optional<Values> last_changed;

  bool has(std::size_t index);  // pulls up to it
  std::size_t pull_all();
};

class Interpreter {
 public:
  Interpreter(const Limits& limits, std::optional<std::time_t> now);

  void define(const std::string& name, Value value) { root_->set(name, std::move(value)); }
  std::string run(const Body& body);

  // For built-in functions.
  Budget& budget() { return budget_; }
  std::time_t now() const { return now_ ? *now_ : std::time(nullptr); }
  NamespaceObj* make_namespace();
  Value call(const Value& callee, const Args& args);
  Value get_attr(const Value& object, const std::string& name);
  Value get_item(const Value& object, const Value& key);
  Value filter(const std::string& name, const Value& input, const Args& args);
  bool test(const std::string& name, const Value& value, const Args& args);
  std::string str(const Value& v) { return to_str(v, budget_); }
  Values items(const Value& v) { return iterate(v, budget_); }
  // A string or list whose size is charged.
  Value new_str(std::string s, bool markup = false);
  Value new_list(Values v);

  // What ran last, for messages.
  int line() const { return line_; }
  const Expr* last_expr() const { return last_; }

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class DepthGuard;
  class ScopeGuard;

  void emit(std::string_view text);
  std::string capture(const Body& body);  // in the current scope
  Flow execute(const Body& body);
  Flow execute(const Stmt& s);
  void execute_for(const Stmt& s, const Value& iterable, int depth0);
  void execute_block_set(const Stmt& s);
  void execute_call_block(const Stmt& s);
  void execute_with(const Stmt& s);
  Flow execute_scope(const Stmt& s);
  void assign(const Expr& target, const Value& value);
  Value make_macro(const Stmt& s);
  Value call_macro(const MacroObj& macro, const Args& args);
  Value call_loop(LoopObj& loop, const Args& args);

  Value eval(const Expr& e);
  Value eval_name(const Expr& e) const;
  Value eval_sequence(const Expr& e);
  Value eval_dict(const Expr& e);
  Value eval_slice(const Expr& e);
  Value eval_call(const Expr& e, const Value* caller);
  Value eval_filter(const Expr& e, const Value* input);
  Value eval_binary(const Expr& e);
  Value eval_concat(const Expr& e);
  Value eval_compare(const Expr& e);
  Args eval_args(const CallArgs& a);
  void at(const Expr& e) {
    last_ = &e;
    line_ = e.line;
  }

  Budget budget_;
  int depth_limit_;
  int depth_ = 0;
  std::optional<std::time_t> now_;
  std::shared_ptr<Scope> globals_, root_, scope_;
  std::vector<std::unique_ptr<NamespaceObj>> namespaces_;
  std::vector<std::unique_ptr<MacroObj>> macros_;
  std::string* out_ = nullptr;
  int line_ = 0;
  const Expr* last_ = nullptr;
};

}  // namespace narrow::text::jinja

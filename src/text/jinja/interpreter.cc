#include "text/jinja/interpreter.h"

#include <algorithm>

#include "text/jinja/builtins.h"

namespace narrow::text::jinja {

class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter& in) : in_(in) {
    if (++in_.depth_ > in_.depth_limit_) {
      --in_.depth_;
      fail("the template's macros or expressions are nested too deep");
    }
  }
  ~DepthGuard() { --in_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Interpreter& in_;
};

// A new scope below `parent` until the end of the block.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& in, std::shared_ptr<Scope> parent) : in_(in), outer_(std::move(in.scope_)) {
    in_.scope_ = std::make_shared<Scope>();
    in_.scope_->parent = std::move(parent);
  }
  explicit ScopeGuard(Interpreter& in) : ScopeGuard(in, in.scope_) {}
  ~ScopeGuard() { in_.scope_ = std::move(outer_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter& in_;
  std::shared_ptr<Scope> outer_;
};

const Value* Scope::find_here(std::string_view name) const {
  for (const auto& [k, v] : vars) {
    if (k == name) return &v;
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& [k, v] : vars) {
    if (k == name) {
      v = std::move(value);
      return;
    }
  }
  vars.emplace_back(name, std::move(value));
}

bool LoopObj::has(std::size_t index) {
  while (items.size() <= index) {
    std::optional<Value> next = pull ? pull() : std::nullopt;
    if (!next) return false;
    items.push_back(std::move(*next));
  }
  return true;
}

std::size_t LoopObj::pull_all() {
  while (has(items.size())) {
  }
  return items.size();
}

Interpreter::Interpreter(const Limits& limits, std::optional<std::time_t> now)
    : budget_(limits.steps, limits.bytes),
      depth_limit_(limits.depth),
      now_(now),
      globals_(std::make_shared<Scope>()),
      root_(std::make_shared<Scope>()) {
  root_->parent = globals_;
  scope_ = root_;
  for (Value f : global_functions()) globals_->set(f.function().name, f);
}

NamespaceObj* Interpreter::make_namespace() {
  budget_.bytes(4 * kValueBytes);
  namespaces_.push_back(std::make_unique<NamespaceObj>());
  return namespaces_.back().get();
}

Value Interpreter::new_str(std::string s, bool markup) {
  budget_.bytes(s.size() + kValueBytes);
  return Value::str(std::move(s), markup);
}

Value Interpreter::new_list(Values v) {
  budget_.bytes(v.size() + 1, kValueBytes);
  return make_list(std::move(v));
}

std::string Interpreter::run(const Body& body) {
  std::string out;
  out_ = &out;
  execute(body);
  out_ = nullptr;
  return out;
}

void Interpreter::emit(std::string_view text) {
  budget_.bytes(text.size());
  *out_ += text;
}

std::string Interpreter::capture(const Body& body) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  execute(body);
  out_ = outer;
  return text;
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const auto& s : body) {
    const Flow flow = execute(*s);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Stmt& s) {
  using Op = Stmt::Op;
  const DepthGuard depth(*this);
  budget_.step();
  line_ = s.line;
  switch (s.op) {
    case Op::kText:
      emit(s.text);
      break;
    case Op::kPrint:
      for (const ExprPtr& e : s.exprs) {
        const Value v = eval(*e);
        if (v.is_str()) {
          emit(v.text());
        } else {
          emit(str(v));
        }
      }
      break;
    case Op::kSet:
      assign(*s.target, eval(*s.exprs[0]));
      break;
    case Op::kSetBlock:
      execute_block_set(s);
      break;
    case Op::kFor:
      execute_for(s, eval(*s.exprs[0]), 0);
      break;
    case Op::kIf:
      for (const auto& [test, body] : s.branches) {
        if (truthy(eval(*test))) return execute(body);
      }
      return execute(s.else_body);
    case Op::kMacro:
      scope_->set(s.text, make_macro(s));
      break;
    case Op::kCallBlock:
      execute_call_block(s);
      break;
    case Op::kFilterBlock: {
      const ScopeGuard scope(*this);
      const Value text = new_str(capture(s.body));
      emit(str(eval_filter(*s.filter, &text)));
      break;
    }
    case Op::kWith:
      execute_with(s);
      break;
    case Op::kScope:
      return execute_scope(s);
    case Op::kBreak:
      return Flow::kBreak;
    case Op::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_scope(const Stmt& s) {
  const ScopeGuard scope(*this, s.at_root ? root_ : scope_);
  return execute(s.body);
}

void Interpreter::execute_block_set(const Stmt& s) {
  Value v;
  {
    const ScopeGuard scope(*this);
    v = new_str(capture(s.body));
    if (s.filter) v = eval_filter(*s.filter, &v);
  }
  assign(*s.target, v);
}

void Interpreter::execute_with(const Stmt& s) {
  Values values;
  for (const ExprPtr& e : s.exprs) values.push_back(eval(*e));
  const ScopeGuard scope(*this);
  for (std::size_t i = 0; i < values.size(); ++i) assign(*s.targets[i], values[i]);
  execute(s.body);
}

void Interpreter::execute_call_block(const Stmt& s) {
  const Value caller = make_macro(s);
  emit(str(eval_call(*s.exprs[0], &caller)));
}

void Interpreter::execute_for(const Stmt& s, const Value& iterable, int depth0) {
  Values source = iterate(iterable, budget_);
  std::size_t next = 0;
  auto loop = std::make_shared<LoopObj>();
  loop->depth0 = depth0;
  loop->depth = iterable.depth() + 1;
  loop->node = &s;
  loop->pull = [&]() -> std::optional<Value> {
    while (next < source.size()) {
      Value v = std::move(source[next++]);
      if (!s.filter) return v;
      const ScopeGuard scope(*this);
      assign(*s.target, v);
      if (truthy(eval(*s.filter))) return v;
    }
    return std::nullopt;
  };
  // The template may keep `loop`; what it pulls from ends here.
  struct End {
    LoopObj& loop;
    ~End() {
      loop.node = nullptr;
      loop.pull = nullptr;
      loop.last_changed.reset();  // may hold the loop itself
    }
  } end{*loop};
  bool completed = false;  // jinja2 runs `else` unless one pass reached the body's end
  for (std::size_t i = 0; loop->has(i); ++i) {
    budget_.step();
    loop->index0 = i;
    const ScopeGuard scope(*this);
    scope_->set("loop", Value::make(loop));
    assign(*s.target, loop->items[i]);
    const Flow flow = execute(s.body);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) completed = true;
  }
  if (!completed) {
    const ScopeGuard scope(*this);
    execute(s.else_body);
  }
}

void Interpreter::assign(const Expr& target, const Value& value) {
  switch (target.op) {
    case Expr::Op::kName:
      scope_->set(target.name, value);
      return;
    case Expr::Op::kNamespaceRef: {
      at(target);
      const Value ns = eval_name(target);
      if (!ns.is(Kind::kNamespace)) {
        fail("cannot assign {}.{}: only a namespace has attributes that can be set", target.name,
             target.attribute);
      }
      budget_.bytes(kValueBytes);
      ns.ns().set(target.attribute, value);
      return;
    }
    default:
      break;
  }
  const Values parts = iterate(value, budget_);
  if (parts.size() != target.kids.size()) {
    at(target);
    fail("cannot unpack {} values into {} names", parts.size(), target.kids.size());
  }
  for (std::size_t i = 0; i < parts.size(); ++i) assign(*target.kids[i], parts[i]);
}

Value Interpreter::make_macro(const Stmt& s) {
  budget_.bytes(4 * kValueBytes);
  macros_.push_back(std::make_unique<MacroObj>(MacroObj{s.text, &s, scope_}));
  return Value::make(static_cast<const MacroObj*>(macros_.back().get()));
}

Value Interpreter::call_macro(const MacroObj& macro, const Args& args) {
  const DepthGuard depth(*this);
  const Stmt& s = *macro.node;
  std::vector<std::pair<std::string, Value>> named = args.named;
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    for (auto it = named.begin(); it != named.end(); ++it) {
      if (it->first == name) {
        Value v = std::move(it->second);
        named.erase(it);
        return v;
      }
    }
    return std::nullopt;
  };
  const ScopeGuard scope(*this, macro.scope);
  const std::size_t n = s.params.size();
  const std::size_t first_default = n - s.defaults.size();
  for (std::size_t i = 0; i < n; ++i) {
    std::optional<Value> v = i < args.pos.size() ? args.pos[i] : take(s.params[i]);
    if (!v && i >= first_default) v = eval(*s.defaults[i - first_default]);
    scope_->set(s.params[i],
                v ? *v : Value::undefined(fmt::format("parameter '{}' was not provided", s.params[i])));
  }
  if (s.uses_caller && std::find(s.params.begin(), s.params.end(), "caller") == s.params.end()) {
    const std::optional<Value> caller = take("caller");
    scope_->set("caller", caller ? *caller : Value::undefined("no caller defined"));
  }
  if (s.uses_kwargs) {
    DictObj d;
    for (auto& [k, v] : named) dict_set(d, Value::str(k), v, budget_);
    scope_->set("kwargs", make_dict(std::move(d)));
  } else if (!named.empty()) {
    fail("macro '{}' takes no argument '{}'", macro.name, named[0].first);
  }
  if (s.uses_varargs) {
    Values rest;
    for (std::size_t i = n; i < args.pos.size(); ++i) rest.push_back(args.pos[i]);
    scope_->set("varargs", make_tuple(std::move(rest)));
  } else if (args.pos.size() > n) {
    fail("macro '{}' takes at most {} arguments", macro.name, n);
  }
  return new_str(capture(s.body));
}

Value Interpreter::call_loop(LoopObj& loop, const Args& args) {
  if (loop.node == nullptr || !loop.node->recursive)
    fail("only a loop marked 'recursive' that still runs can be called");
  if (args.pos.size() != 1 || !args.named.empty()) fail("loop() takes one argument");
  const DepthGuard depth(*this);
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  execute_for(*loop.node, args.pos[0], loop.depth0 + 1);
  out_ = outer;
  return new_str(std::move(text));
}

Value Interpreter::call(const Value& callee, const Args& args) {
  switch (callee.kind()) {
    case Kind::kFunction:
      return callee.function().call(*this, args);
    case Kind::kMacro:
      return call_macro(callee.macro(), args);
    case Kind::kLoop:
      return call_loop(callee.loop(), args);
    case Kind::kUndefined:
      fail("{}", callee.undefined_reason());
    default:
      fail("a value of type {} cannot be called", type_name(callee));
  }
}

Value Interpreter::eval(const Expr& e) {
  using Op = Expr::Op;
  const DepthGuard depth(*this);
  budget_.step();
  at(e);
  switch (e.op) {
    case Op::kConst:
      return e.value;
    case Op::kName:
    case Op::kNamespaceRef:
      return eval_name(e);
    case Op::kTuple:
    case Op::kList:
      return eval_sequence(e);
    case Op::kDict:
      return eval_dict(e);
    case Op::kAttr: {
      const Value object = eval(*e.kids[0]);
      at(e);
      return get_attr(object, e.attribute);
    }
    case Op::kItem: {
      const Value object = eval(*e.kids[0]);
      const Value key = eval(*e.kids[1]);
      at(e);
      return get_item(object, key);
    }
    case Op::kSlice:
      return eval_slice(e);
    case Op::kCall:
      return eval_call(e, nullptr);
    case Op::kFilter:
      return eval_filter(e, nullptr);
    case Op::kTest: {
      const Value v = eval(*e.kids[0]);
      const Args args = eval_args(*e.args);
      at(e);
      return Value::boolean(test(e.name, v, args));
    }
    case Op::kCond:
      if (truthy(eval(*e.kids[0]))) return eval(*e.kids[1]);
      if (e.kids[2]) return eval(*e.kids[2]);
      return Value::undefined("the inline if-expression was false and no else section was given");
    case Op::kAnd: {
      Value v = eval(*e.kids[0]);
      return truthy(v) ? eval(*e.kids[1]) : v;
    }
    case Op::kOr: {
      Value v = eval(*e.kids[0]);
      return truthy(v) ? v : eval(*e.kids[1]);
    }
    case Op::kNot:
      return Value::boolean(!truthy(eval(*e.kids[0])));
    case Op::kNeg:
    case Op::kPos: {
      const Value v = eval(*e.kids[0]);
      at(e);
      return unary_operator(e.op == Op::kNeg, v);
    }
    case Op::kConcat:
      return eval_concat(e);
    case Op::kCompare:
      return eval_compare(e);
    default:
      return eval_binary(e);
  }
}

Value Interpreter::eval_name(const Expr& e) const {
  for (const Scope* s = scope_.get(); s != nullptr; s = s->parent.get()) {
    if (const Value* v = s->find_here(e.name)) return *v;
  }
  return Value::undefined(fmt::format("'{}' is undefined", e.name));
}

Value Interpreter::eval_sequence(const Expr& e) {
  Values items;
  items.reserve(e.kids.size());
  for (const ExprPtr& kid : e.kids) items.push_back(eval(*kid));
  budget_.bytes(items.size() + 1, kValueBytes);
  return e.op == Expr::Op::kList ? make_list(std::move(items)) : make_tuple(std::move(items));
}

Value Interpreter::eval_dict(const Expr& e) {
  DictObj d;
  for (std::size_t i = 0; i < e.kids.size(); i += 2) {
    Value key = eval(*e.kids[i]);
    Value value = eval(*e.kids[i + 1]);
    at(e);
    dict_set(d, std::move(key), std::move(value), budget_);
  }
  budget_.bytes(kValueBytes);
  return make_dict(std::move(d));
}

Value Interpreter::eval_slice(const Expr& e) {
  const Value object = eval(*e.kids[0]);
  Value bounds[3];
  for (int i = 0; i < 3; ++i) {
    const ExprPtr& kid = e.kids[static_cast<std::size_t>(i) + 1];
    bounds[i] = kid ? eval(*kid) : Value::none();
  }
  at(e);
  return slice(object, bounds[0], bounds[1], bounds[2], budget_);
}

Args Interpreter::eval_args(const CallArgs& a) {
  Args args;
  for (const ExprPtr& e : a.pos) args.pos.push_back(eval(*e));
  for (const auto& [name, e] : a.named) args.named.emplace_back(name, eval(*e));
  if (a.star) {
    for (Value& v : iterate(eval(*a.star), budget_)) args.pos.push_back(std::move(v));
  }
  if (a.double_star) {
    const Value d = eval(*a.double_star);
    if (!d.is(Kind::kDict)) fail("the value after ** must be a dict, not {}", type_name(d));
    budget_.bytes(d.dict().items.size(), kValueBytes);
    for (const auto& [k, v] : d.dict().items) {
      if (!k.is_str()) fail("the keys of a ** argument must be strings");
      args.named.emplace_back(k.text(), v);
    }
  }
  return args;
}

Value Interpreter::eval_call(const Expr& e, const Value* caller) {
  const Value callee = eval(*e.kids[0]);
  Args args = eval_args(*e.args);
  if (caller != nullptr) args.named.emplace_back("caller", *caller);
  at(e);
  return call(callee, args);
}

Value Interpreter::eval_filter(const Expr& e, const Value* input) {
  const DepthGuard depth(*this);
  Value v;
  if (e.kids[0] && input != nullptr) {
    v = eval_filter(*e.kids[0], input);  // a chain in a filter block
  } else {
    v = e.kids[0] ? eval(*e.kids[0]) : *input;
  }
  const Args args = eval_args(*e.args);
  at(e);
  return filter(e.name, v, args);
}

Value Interpreter::eval_binary(const Expr& e) {
  const Value a = eval(*e.kids[0]);
  const Value b = eval(*e.kids[1]);
  at(e);
  return binary_operator(e.op, a, b, budget_);
}

Value Interpreter::eval_concat(const Expr& e) {
  std::string text;
  for (const ExprPtr& kid : e.kids) {
    const Value v = eval(*kid);
    budget_.bytes(v.is_str() ? v.text().size() : 0);
    text += str(v);
  }
  return new_str(std::move(text));
}

Value Interpreter::eval_compare(const Expr& e) {
  Value left = eval(*e.kids[0]);
  for (std::size_t i = 0; i < e.compares.size(); ++i) {
    Value right = eval(*e.kids[i + 1]);
    at(e);
    if (!compare(e.compares[i], left, right, budget_)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

}  // namespace narrow::text::jinja

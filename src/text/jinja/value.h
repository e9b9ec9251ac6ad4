// Values of a template at run time, with Python's semantics of truth, equality, order and printing.
//
// Strings, lists and dicts are immutable once made and shared by reference count. Namespaces and macros, the
// only things that could form cycles, are owned by the interpreter and referred to by plain pointers.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace narrow::text::jinja {

// Thrown inside this folder only; ChatTemplate turns it into an Error. `line` 0: not known where it was
// thrown.
struct TemplateError {
  std::string message;
  int line = 0, column = 0;
  bool raised = false;  // by the template's own raise_exception
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> f, Args&&... args) {
  throw TemplateError{fmt::format(f, std::forward<Args>(args)...)};
}

// What one rendering may still spend. Every visited node or element is a step; bytes are counted when made
// and never given back, so that the memory in use is bounded too.
class Budget {
 public:
  Budget(std::uint64_t steps, std::uint64_t bytes) : steps_(steps), bytes_(bytes) {}
  void step(std::uint64_t n = 1) {
    if (n > steps_) fail("the template runs for too many steps");
    steps_ -= n;
  }
  void bytes(std::uint64_t n) {
    if (n > bytes_) fail("the template makes too much text or too many values");
    bytes_ -= n;
  }
  // `count` things of `each` bytes; safe against overflow.
  void bytes(std::uint64_t count, std::uint64_t each) {
    if (each != 0 && count > bytes_ / each) fail("the template makes too much text or too many values");
    bytes(count * each);
  }

 private:
  std::uint64_t steps_, bytes_;
};

class Value;
class Interpreter;
struct SeqObj;
struct DictObj;
struct FunctionObj;
struct NamespaceObj;
struct MacroObj;
struct LoopObj;

inline constexpr std::uint64_t kValueBytes = 64;  // charged per element of a list or dict
inline constexpr int kMaxValueDepth = 128;        // of lists in lists

struct UndefinedInfo {
  std::shared_ptr<const std::string> why;  // the error that using it gives
};
struct NoneInfo {};
struct StrObj {
  std::string text;
  bool markup = false;  // markupsafe.Markup: concatenation escapes the other side
};

// The alternatives' order is Value's variant's order.
enum class Kind : std::uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kStr,
  kSeq,
  kDict,
  kFunction,
  kNamespace,
  kMacro,
  kLoop,
};

class Value {
 public:
  Value() = default;  // undefined
  static Value undefined(std::string why) {
    Value v;
    v.v_ = UndefinedInfo{std::make_shared<const std::string>(std::move(why))};
    return v;
  }
  static Value none() { return make(NoneInfo{}); }
  static Value boolean(bool b) { return make(b); }
  static Value integer(std::int64_t i) { return make(i); }
  static Value real(double d) { return make(d); }
  static Value str(std::string s, bool markup = false) {
    return make(std::make_shared<const StrObj>(StrObj{std::move(s), markup}));
  }
  template <class T>
  static Value make(T x) {
    Value v;
    v.v_ = std::move(x);
    return v;
  }

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_str() const { return is(Kind::kStr); }
  bool is_integral() const { return is(Kind::kInt) || is(Kind::kBool); }  // bool is an int in Python
  bool is_number() const { return is_integral() || is(Kind::kFloat); }

  bool as_bool() const { return std::get<bool>(v_); }
  std::int64_t as_int() const { return is(Kind::kBool) ? as_bool() : std::get<std::int64_t>(v_); }
  double as_float() const { return is(Kind::kFloat) ? std::get<double>(v_) : static_cast<double>(as_int()); }
  const std::string& text() const { return std::get<std::shared_ptr<const StrObj>>(v_)->text; }
  bool is_markup() const { return is_str() && std::get<std::shared_ptr<const StrObj>>(v_)->markup; }
  SeqObj& seq() const { return *std::get<std::shared_ptr<SeqObj>>(v_); }
  const DictObj& dict() const { return *std::get<std::shared_ptr<const DictObj>>(v_); }
  const FunctionObj& function() const { return *std::get<std::shared_ptr<const FunctionObj>>(v_); }
  NamespaceObj& ns() const { return *std::get<NamespaceObj*>(v_); }
  const MacroObj& macro() const { return *std::get<const MacroObj*>(v_); }
  LoopObj& loop() const { return *std::get<std::shared_ptr<LoopObj>>(v_); }
  std::string undefined_reason() const;
  const void* identity() const;  // address of a shared object, null for plain values
  int depth() const;             // nesting of lists and dicts below

 private:
  std::variant<UndefinedInfo, NoneInfo, bool, std::int64_t, double, std::shared_ptr<const StrObj>,
               std::shared_ptr<SeqObj>, std::shared_ptr<const DictObj>, std::shared_ptr<const FunctionObj>,
               NamespaceObj*, const MacroObj*, std::shared_ptr<LoopObj>>
      v_;
};

using Values = std::vector<Value>;

struct SeqObj {
  enum class Flavor : std::uint8_t { kList, kTuple, kRange, kIterator, kKeys, kValues, kItems };
  Flavor flavor = Flavor::kList;
  Values items;
  std::size_t next = 0;  // kIterator: the first item not taken yet; iterators are read once
  std::string label;     // kRange, kIterator: how it prints. kTuple: "group" for groupby's pairs
  int depth = 1;
};

struct DictObj {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;
  const Value* find(std::string_view key) const;
};

struct Args {
  Values pos;
  std::vector<std::pair<std::string, Value>> named;
};

struct FunctionObj {
  std::string name;
  std::function<Value(Interpreter&, const Args&)> call;
  int depth = 0;  // of the values it holds
};

struct NamespaceObj {
  std::vector<std::pair<std::string, Value>> vars;
  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};

Value make_seq(SeqObj::Flavor flavor, Values items, std::string label = {});
inline Value make_list(Values items) { return make_seq(SeqObj::Flavor::kList, std::move(items)); }
inline Value make_tuple(Values items) { return make_seq(SeqObj::Flavor::kTuple, std::move(items)); }
Value make_dict(DictObj d);  // keys must differ
Value make_function(std::string name, std::function<Value(Interpreter&, const Args&)> call, int depth = 0);
// Fails on unhashable keys.
void dict_set(DictObj& d, Value key, Value value, Budget& budget);
const Value* dict_find(const DictObj& d, const Value& key, Budget& budget);
bool is_hashable(const Value& v);

bool is_flavor(const Value& v, SeqObj::Flavor f);
bool is_list_or_tuple(const Value& v);

bool truthy(const Value& v);
bool equal(const Value& a, const Value& b, Budget& budget);
// Python's <, with a TypeError where types have no order.
bool less(const Value& a, const Value& b, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);  // item in container
// The elements that a for loop sees. Iterators are used up. Fails on what is not iterable.
Values iterate(const Value& v, Budget& budget);
bool is_iterable(const Value& v);
std::optional<std::size_t> length(const Value& v);  // none: has no len()

std::string type_name(const Value& v);  // "str", "list", ...
std::string repr_float(double d);
std::string repr_str(std::string_view s);
void append_repr(std::string& out, const Value& v, Budget& budget);
std::string repr(const Value& v, Budget& budget);
std::string to_str(const Value& v, Budget& budget);  // str(v)

// json.dumps as transformers' tojson calls it.
struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // text of one level
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(const Value& v, const JsonStyle& style, Budget& budget);
Value from_json(const nlohmann::ordered_json& j);

}  // namespace narrow::text::jinja

// Attributes, items, and the methods of dicts and lists, as the immutable sandbox allows them: what would
// change a value is undefined.
#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {

using Flavor = SeqObj::Flavor;

Bound::Bound(std::string_view function, const Args& args, std::initializer_list<std::string_view> params,
             std::size_t required)
    : function_(function), names_(params), values_(params.size(), nullptr) {
  if (args.pos.size() > names_.size()) {
    fail("{} takes at most {} arguments, {} given", function, names_.size(), args.pos.size());
  }
  for (std::size_t i = 0; i < args.pos.size(); ++i) values_[i] = &args.pos[i];
  for (const auto& [name, v] : args.named) {
    const auto it = std::find(names_.begin(), names_.end(), name);
    if (it == names_.end()) fail("{} takes no argument '{}'", function, name);
    const Value*& slot = values_[static_cast<std::size_t>(it - names_.begin())];
    if (slot != nullptr) fail("{}: argument '{}' is given twice", function, name);
    slot = &v;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) fail("{} needs the argument '{}'", function, names_[i]);
  }
}

std::int64_t Bound::integer(std::size_t i, std::int64_t otherwise) const {
  if (values_[i] == nullptr) return otherwise;
  if (values_[i]->is_undefined()) fail("{}", values_[i]->undefined_reason());
  if (!values_[i]->is_integral()) {
    fail("{}: '{}' must be an integer, not {}", function_, names_[i], type_name(*values_[i]));
  }
  return values_[i]->as_int();
}

const std::string& Bound::text(std::size_t i) const {
  if (values_[i] == nullptr) fail("{} needs the argument '{}'", function_, names_[i]);
  if (values_[i]->is_undefined()) fail("{}", values_[i]->undefined_reason());
  if (!values_[i]->is_str()) {
    fail("{}: '{}' must be a string, not {}", function_, names_[i], type_name(*values_[i]));
  }
  return values_[i]->text();
}

namespace {

Value view(Interpreter& in, const Value& self, Flavor flavor) {
  Values items;
  const DictObj& d = self.dict();
  in.budget().bytes(d.items.size(), 3 * kValueBytes);
  in.budget().step(d.items.size());
  for (const auto& [k, v] : d.items) {
    items.push_back(flavor == Flavor::kKeys ? k : flavor == Flavor::kValues ? v : make_tuple({k, v}));
  }
  return make_seq(flavor, std::move(items));
}

Value dict_items(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("items()", args, {});
  return view(in, self, Flavor::kItems);
}
Value dict_keys(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("keys()", args, {});
  return view(in, self, Flavor::kKeys);
}
Value dict_values(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("values()", args, {});
  return view(in, self, Flavor::kValues);
}
Value dict_get(Interpreter& in, const Value& self, const Args& args) {
  if (!args.named.empty()) fail("get() takes no named arguments");
  const Bound b("get()", args, {"key", "default"}, 1);
  if (!is_hashable(b.at(0))) fail("a {} cannot be a dict's key", type_name(b.at(0)));
  in.budget().step(self.dict().items.size() / 16);
  if (const Value* v = dict_find(self.dict(), b.at(0), in.budget())) return *v;
  return b.get(1) ? b.at(1) : Value::none();
}
Value copy(Interpreter&, const Value& self, const Args& args) {
  const Bound b("copy()", args, {});
  return self;  // nothing can change it
}

Value seq_count(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("count()", args, {"value"}, 1);
  std::int64_t n = 0;
  for (const Value& v : self.seq().items) n += equal(v, b.at(0), in.budget());
  return Value::integer(n);
}
Value seq_index(Interpreter& in, const Value& self, const Args& args) {
  const Bound b("index()", args, {"value", "start", "stop"}, 1);
  const auto n = static_cast<std::int64_t>(self.seq().items.size());
  const auto clip = [n](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? std::max(i, -n) + n : i, 0, n);
  };
  for (std::int64_t i = clip(b.integer(1, 0)), end = clip(b.integer(2, n)); i < end; ++i) {
    if (equal(self.seq().items[static_cast<std::size_t>(i)], b.at(0), in.budget())) return Value::integer(i);
  }
  fail("index(): {} is not in the list", repr(b.at(0), in.budget()));
}

constexpr Named<MethodFn> kDictMethods[] = {
    {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}, {"get", dict_get}, {"copy", copy}};
constexpr Named<MethodFn> kListMethods[] = {{"count", seq_count}, {"index", seq_index}, {"copy", copy}};
constexpr Named<MethodFn> kTupleMethods[] = {{"count", seq_count}, {"index", seq_index}};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListChanges[] = {"append", "clear", "pop",    "reverse",
                                             "insert", "sort",  "extend", "remove"};

template <std::size_t n>
bool listed(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string object_name(const Value& v) { return v.is_none() ? "None" : type_name(v) + " object"; }

Value loop_attr(LoopObj& loop, const Value& self, const std::string& name) {
  const auto integer = [](std::size_t i) { return Value::integer(static_cast<std::int64_t>(i)); };
  const std::size_t i = loop.index0;
  if (name == "index0") return integer(i);
  if (name == "index") return integer(i + 1);
  if (name == "first") return Value::boolean(i == 0);
  if (name == "last") return Value::boolean(!loop.has(i + 1));
  if (name == "length") return integer(loop.pull_all());
  if (name == "revindex") return integer(loop.pull_all() - i);
  if (name == "revindex0") return integer(loop.pull_all() - i - 1);
  if (name == "depth0") return Value::integer(loop.depth0);
  if (name == "depth") return Value::integer(loop.depth0 + 1);
  if (name == "previtem") return i == 0 ? Value::undefined("there is no previous item") : loop.items[i - 1];
  if (name == "nextitem")
    return loop.has(i + 1) ? loop.items[i + 1] : Value::undefined("there is no next item");
  if (name == "cycle") {
    return make_function(
        name,
        [self](Interpreter&, const Args& args) {
          if (args.pos.empty() || !args.named.empty()) fail("cycle() needs the items to cycle through");
          return args.pos[self.loop().index0 % args.pos.size()];
        },
        self.depth());
  }
  if (name == "changed") {
    return make_function(
        name,
        [self](Interpreter& in, const Args& args) {
          std::optional<Values>& last = self.loop().last_changed;
          bool same = last && last->size() == args.pos.size();
          for (std::size_t k = 0; same && k < args.pos.size(); ++k)
            same = equal((*last)[k], args.pos[k], in.budget());
          last = args.pos;
          return Value::boolean(!same);
        },
        self.depth());
  }
  return Value::undefined(fmt::format("'loop' has no attribute '{}'", name));
}

std::optional<Value> seq_attr(const Value& self, const std::string& name) {
  const SeqObj& s = self.seq();
  if (s.flavor == Flavor::kTuple && s.label == "group") {
    if (name == "grouper") return s.items[0];
    if (name == "list") return s.items[1];
  }
  return std::nullopt;
}

Value bind(const std::string& name, MethodFn fn, const Value& self) {
  return make_function(
      name, [fn, self](Interpreter& in, const Args& args) { return fn(in, self, args); }, self.depth());
}

// The attribute proper, not an item of the same name; none if there is no such attribute.
std::optional<Value> own_attr(const Value& object, const std::string& name) {
  const auto unsafe = [&] {
    return Value::undefined(
        fmt::format("'{}' of a {} is not allowed in a template", name, object_name(object)));
  };
  MethodFn fn = nullptr;
  switch (object.kind()) {
    case Kind::kStr:
      fn = find_str_method(name);
      break;
    case Kind::kDict:
      if (listed(kDictChanges, name)) return unsafe();
      fn = find_container_method(object, name);
      break;
    case Kind::kSeq:
      if (auto v = seq_attr(object, name)) return v;
      if (object.seq().flavor == Flavor::kList && listed(kListChanges, name)) return unsafe();
      fn = find_container_method(object, name);
      break;
    case Kind::kNamespace:
      if (const Value* v = object.ns().find(name)) return *v;
      break;
    case Kind::kLoop:
      return loop_attr(object.loop(), object, name);
    case Kind::kMacro:
      if (name == "name") return Value::str(object.macro().name);
      break;
    default:
      break;
  }
  if (fn != nullptr) return bind(name, fn, object);
  return std::nullopt;
}

}  // namespace

MethodFn find_container_method(const Value& self, std::string_view name) {
  if (self.is(Kind::kDict)) return find_in(kDictMethods, name);
  if (is_flavor(self, Flavor::kList)) return find_in(kListMethods, name);
  if (is_flavor(self, Flavor::kTuple) || is_flavor(self, Flavor::kRange)) return find_in(kTupleMethods, name);
  return nullptr;
}

Value Interpreter::get_attr(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail("{}", object.undefined_reason());
  if (auto v = own_attr(object, name)) return *v;
  if (object.is(Kind::kDict)) {
    budget_.step(object.dict().items.size() / 16);
    if (const Value* v = object.dict().find(name)) return *v;
  }
  return Value::undefined(fmt::format("'{}' has no attribute '{}'", object_name(object), name));
}

Value Interpreter::get_item(const Value& object, const Value& key) {
  if (object.is_undefined()) fail("{}", object.undefined_reason());
  if (object.is(Kind::kDict) && is_hashable(key)) {
    budget_.step(object.dict().items.size() / 16);
    if (const Value* v = dict_find(object.dict(), key, budget_)) return *v;
  }
  const bool indexed = object.is_str() || is_list_or_tuple(object) || is_flavor(object, Flavor::kRange);
  if (indexed && key.is_integral()) {
    const std::string* text = object.is_str() ? &object.text() : nullptr;
    if (text != nullptr) budget_.step(text->size() / 64);
    const auto n =
        static_cast<std::int64_t>(text != nullptr ? count_code_points(*text) : object.seq().items.size());
    const std::int64_t i = key.as_int() < 0 ? key.as_int() + n : key.as_int();
    if (i >= 0 && i < n) {
      if (text == nullptr) return object.seq().items[static_cast<std::size_t>(i)];
      const std::size_t from = byte_offset(*text, static_cast<std::size_t>(i));
      std::size_t to = from;
      next_code_point(*text, to);
      return Value::str(text->substr(from, to - from), object.is_markup());
    }
  }
  if (key.is_str()) {
    if (auto v = own_attr(object, key.text())) return *v;
    return Value::undefined(fmt::format("'{}' has no attribute '{}'", object_name(object), key.text()));
  }
  return Value::undefined(fmt::format("{} has no element {}", object_name(object), repr(key, budget_)));
}

}  // namespace narrow::text::jinja

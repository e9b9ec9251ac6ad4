#include "text/jinja/value.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/jinja/interpreter.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {

using Flavor = SeqObj::Flavor;

std::string Value::undefined_reason() const {
  const auto& why = std::get<UndefinedInfo>(v_).why;
  return why ? *why : "a value is undefined";
}

const void* Value::identity() const {
  switch (kind()) {
    case Kind::kStr:
      return std::get<std::shared_ptr<const StrObj>>(v_).get();
    case Kind::kSeq:
      return &seq();
    case Kind::kDict:
      return &dict();
    case Kind::kFunction:
      return &function();
    case Kind::kNamespace:
      return &ns();
    case Kind::kMacro:
      return &macro();
    case Kind::kLoop:
      return &loop();
    default:
      return nullptr;
  }
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kSeq:
      return seq().depth;
    case Kind::kDict:
      return dict().depth;
    case Kind::kFunction:
      return function().depth;
    case Kind::kLoop:
      return loop().depth;
    default:
      return 0;
  }
}

const Value* DictObj::find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.is_str() && k.text() == key) return &v;
  }
  return nullptr;
}

const Value* NamespaceObj::find(std::string_view name) const {
  for (const auto& [k, v] : vars) {
    if (k == name) return &v;
  }
  return nullptr;
}

void NamespaceObj::set(const std::string& name, Value value) {
  for (auto& [k, v] : vars) {
    if (k == name) {
      v = std::move(value);
      return;
    }
  }
  vars.emplace_back(name, std::move(value));
}

namespace {

void check_depth(int depth) {
  if (depth > kMaxValueDepth) fail("values are nested more than {} deep", kMaxValueDepth);
}

}  // namespace

Value make_seq(Flavor flavor, Values items, std::string label) {
  auto s = std::make_shared<SeqObj>();
  for (const Value& v : items) s->depth = std::max(s->depth, v.depth() + 1);
  check_depth(s->depth);
  s->flavor = flavor;
  s->items = std::move(items);
  s->label = std::move(label);
  return Value::make(std::move(s));
}

Value make_dict(DictObj d) {
  for (const auto& [k, v] : d.items) d.depth = std::max({d.depth, k.depth() + 1, v.depth() + 1});
  check_depth(d.depth);
  return Value::make(std::make_shared<const DictObj>(std::move(d)));
}

Value make_function(std::string name, std::function<Value(Interpreter&, const Args&)> call, int depth) {
  auto f = std::make_shared<FunctionObj>();
  f->name = std::move(name);
  f->call = std::move(call);
  f->depth = depth + 1;
  check_depth(f->depth);
  return Value::make(std::shared_ptr<const FunctionObj>(std::move(f)));
}

bool is_hashable(const Value& v) {
  if (v.is(Kind::kDict)) return false;
  if (!v.is(Kind::kSeq)) return true;
  const SeqObj& s = v.seq();
  if (s.flavor == Flavor::kTuple) return std::all_of(s.items.begin(), s.items.end(), is_hashable);
  return s.flavor == Flavor::kRange || s.flavor == Flavor::kIterator || s.flavor == Flavor::kValues;
}

const Value* dict_find(const DictObj& d, const Value& key, Budget& budget) {
  if (key.is_str()) return d.find(key.text());
  for (const auto& [k, v] : d.items) {
    if (!k.is_str() && equal(k, key, budget)) return &v;
  }
  return nullptr;
}

void dict_set(DictObj& d, Value key, Value value, Budget& budget) {
  if (!is_hashable(key)) fail("a {} cannot be a dict's key", type_name(key));
  budget.step(1 + d.items.size() / 16);
  if (const Value* old = dict_find(d, key, budget)) {
    const_cast<Value&>(*old) = std::move(value);
    return;
  }
  budget.bytes(2 * kValueBytes);
  d.items.emplace_back(std::move(key), std::move(value));
}

bool is_flavor(const Value& v, Flavor f) { return v.is(Kind::kSeq) && v.seq().flavor == f; }
bool is_list_or_tuple(const Value& v) { return is_flavor(v, Flavor::kList) || is_flavor(v, Flavor::kTuple); }

bool truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return v.as_bool();
    case Kind::kInt:
      return v.as_int() != 0;
    case Kind::kFloat:
      return v.as_float() != 0;
    case Kind::kStr:
      return !v.text().empty();
    case Kind::kSeq:
      return v.seq().flavor == Flavor::kIterator || !v.seq().items.empty();
    case Kind::kDict:
      return !v.dict().items.empty();
    default:
      return true;
  }
}

namespace {

// Exact comparison of numbers: a long double holds every int64 and every double.
int compare_numbers(const Value& a, const Value& b, bool& unordered) {
  const long double x = a.is_integral() ? static_cast<long double>(a.as_int()) : a.as_float();
  const long double y = b.is_integral() ? static_cast<long double>(b.as_int()) : b.as_float();
  unordered = x != x || y != y;
  return x < y ? -1 : x > y ? 1 : 0;
}

bool equal_dicts(const DictObj& a, const DictObj& b, Budget& budget) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [k, v] : a.items) {
    budget.step(1 + b.items.size() / 16);
    const Value* other = dict_find(b, k, budget);
    if (other == nullptr || !equal(v, *other, budget)) return false;
  }
  return true;
}

}  // namespace

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  if (a.is_number() && b.is_number()) {
    bool unordered = false;
    return compare_numbers(a, b, unordered) == 0 && !unordered;
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kStr:
      budget.step(std::min(a.text().size(), b.text().size()) / 1024);
      return a.text() == b.text();
    case Kind::kSeq: {
      const SeqObj &x = a.seq(), &y = b.seq();
      if (&x == &y) return true;
      if (x.flavor != y.flavor || x.flavor == Flavor::kIterator || x.flavor == Flavor::kValues) return false;
      if (x.items.size() != y.items.size()) return false;
      if (x.flavor == Flavor::kKeys || x.flavor == Flavor::kItems) {  // views compare as sets
        return std::all_of(x.items.begin(), x.items.end(),
                           [&](const Value& v) { return contains(b, v, budget); });
      }
      for (std::size_t i = 0; i < x.items.size(); ++i) {
        if (!equal(x.items[i], y.items[i], budget)) return false;
      }
      return true;
    }
    case Kind::kDict:
      return equal_dicts(a.dict(), b.dict(), budget);
    default:
      return a.identity() == b.identity();
  }
}

bool less(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  if (a.is_undefined()) fail("{}", a.undefined_reason());
  if (b.is_undefined()) fail("{}", b.undefined_reason());
  if (a.is_number() && b.is_number()) {
    bool unordered = false;
    return compare_numbers(a, b, unordered) < 0 && !unordered;
  }
  if (a.is_str() && b.is_str()) return a.text() < b.text();  // UTF-8 sorts by code point
  if (is_list_or_tuple(a) && is_list_or_tuple(b) && a.seq().flavor == b.seq().flavor) {
    const Values &x = a.seq().items, &y = b.seq().items;
    for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!equal(x[i], y[i], budget)) return less(x[i], y[i], budget);
    }
    return x.size() < y.size();
  }
  fail("'{}' and '{}' have no order", type_name(a), type_name(b));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kStr:
      if (item.is_undefined()) fail("{}", item.undefined_reason());
      if (!item.is_str()) fail("'in <string>' needs a string on the left, not {}", type_name(item));
      budget.step(container.text().size() / 256);
      return container.text().find(item.text()) != std::string::npos;
    case Kind::kDict:
      if (!is_hashable(item)) fail("a {} cannot be a dict's key", type_name(item));
      budget.step(container.dict().items.size() / 16);
      return dict_find(container.dict(), item, budget) != nullptr;
    case Kind::kSeq: {
      SeqObj& s = container.seq();
      if (s.flavor == Flavor::kIterator) {
        while (s.next < s.items.size()) {
          if (equal(s.items[s.next++], item, budget)) return true;
        }
        return false;
      }
      return std::any_of(s.items.begin(), s.items.end(),
                         [&](const Value& v) { return equal(v, item, budget); });
    }
    default:
      fail("a value of type {} contains nothing: 'in' needs a string, list or dict", type_name(container));
  }
}

bool is_iterable(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kStr:
    case Kind::kSeq:
    case Kind::kDict:
    case Kind::kLoop:
      return true;
    default:
      return false;
  }
}

Values iterate(const Value& v, Budget& budget) {
  Values out;
  switch (v.kind()) {
    case Kind::kUndefined:
      return out;
    case Kind::kStr: {
      const std::string& s = v.text();
      budget.bytes(s.size(), 2 * kValueBytes);
      budget.step(s.size());
      for (std::size_t pos = 0; pos < s.size();) {
        const std::size_t start = pos;
        next_code_point(s, pos);
        out.push_back(Value::str(s.substr(start, pos - start)));
      }
      return out;
    }
    case Kind::kSeq: {
      SeqObj& s = v.seq();
      budget.step(s.items.size());
      budget.bytes(s.items.size(), kValueBytes);
      if (s.flavor != Flavor::kIterator) return s.items;
      out.assign(s.items.begin() + static_cast<std::ptrdiff_t>(s.next), s.items.end());
      s.next = s.items.size();
      return out;
    }
    case Kind::kDict:
      budget.step(v.dict().items.size());
      budget.bytes(v.dict().items.size(), kValueBytes);
      for (const auto& item : v.dict().items) out.push_back(item.first);
      return out;
    default:
      fail("a value of type {} cannot be iterated over", type_name(v));
  }
}

std::optional<std::size_t> length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kStr:
      return count_code_points(v.text());
    case Kind::kSeq:
      if (v.seq().flavor == Flavor::kIterator) return std::nullopt;
      return v.seq().items.size();
    case Kind::kDict:
      return v.dict().items.size();
    case Kind::kLoop:
      return v.loop().items.size();
    default:
      return std::nullopt;
  }
}

std::string type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kStr:
      return "str";
    case Kind::kDict:
      return "dict";
    case Kind::kFunction:
      return "function";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kSeq:
      break;
  }
  switch (v.seq().flavor) {
    case Flavor::kList:
      return "list";
    case Flavor::kTuple:
      return "tuple";
    case Flavor::kRange:
      return "range";
    case Flavor::kIterator:
      return "generator";
    case Flavor::kKeys:
      return "dict_keys";
    case Flavor::kValues:
      return "dict_values";
    case Flavor::kItems:
      return "dict_items";
  }
  return "list";
}

namespace {

Value convert(const nlohmann::ordered_json& j, int depth) {
  check_depth(depth);
  using Type = nlohmann::ordered_json::value_t;
  switch (j.type()) {
    case Type::boolean:
      return Value::boolean(*j.get_ptr<const bool*>());
    case Type::number_integer:
      return Value::integer(*j.get_ptr<const std::int64_t*>());
    case Type::number_unsigned: {
      const std::uint64_t u = *j.get_ptr<const std::uint64_t*>();
      if (u > static_cast<std::uint64_t>(INT64_MAX))
        fail("the integer {} in the variables exceeds 64 bits", u);
      return Value::integer(static_cast<std::int64_t>(u));
    }
    case Type::number_float:
      return Value::real(*j.get_ptr<const double*>());
    case Type::string:
      return Value::str(*j.get_ptr<const std::string*>());
    case Type::array: {
      Values items;
      items.reserve(j.size());
      for (const auto& x : j) items.push_back(convert(x, depth + 1));
      return make_list(std::move(items));
    }
    case Type::object: {
      DictObj d;
      d.items.reserve(j.size());
      for (const auto& [k, x] : j.items()) d.items.emplace_back(Value::str(k), convert(x, depth + 1));
      return make_dict(std::move(d));
    }
    default:
      return Value::none();
  }
}

}  // namespace

Value from_json(const nlohmann::ordered_json& j) { return convert(j, 0); }

}  // namespace narrow::text::jinja

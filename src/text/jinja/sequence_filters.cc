// Filters on lists, dicts and anything that can be iterated over.
#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/unicode.h"

namespace narrow::text::jinja {
namespace {

using Flavor = SeqObj::Flavor;

Value iterator(Interpreter& in, Values items, std::string_view name) {
  in.budget().bytes(items.size() + 1, kValueBytes);
  return make_seq(Flavor::kIterator, std::move(items), fmt::format("<generator object {}>", name));
}

// "a.b.0": attributes and indices, one after the other.
Values attribute_path(Interpreter& in, const Value& attribute) {
  Values path;
  if (attribute.is_none()) return path;
  if (!attribute.is_str()) return {attribute};
  const std::string& s = attribute.text();
  in.budget().bytes(s.size(), kValueBytes);
  for (std::size_t start = 0; start <= s.size();) {
    const std::size_t end = std::min(s.find('.', start), s.size());
    const std::string part = s.substr(start, end - start);
    const bool index = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
    path.push_back(index ? Value::integer(std::stoll(part)) : Value::str(part));
    start = end + 1;
  }
  return path;
}

Value lower_text(const Value& v) { return v.is_str() ? Value::str(to_lower(v.text())) : v; }

Value follow(Interpreter& in, Value item, const Values& path, const Value* otherwise = nullptr) {
  for (const Value& part : path) {
    item = in.get_item(item, part);
    if (otherwise != nullptr && !otherwise->is_none() && item.is_undefined()) item = *otherwise;
  }
  return item;
}

Value length_filter(Interpreter&, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  if (v.is(Kind::kLoop)) return Value::integer(static_cast<std::int64_t>(v.loop().pull_all()));
  const auto n = length(v);
  if (!n) fail("a value of type {} has no length", type_name(v));
  return Value::integer(static_cast<std::int64_t>(*n));
}

Value first(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  if (is_flavor(v, Flavor::kIterator)) {
    SeqObj& s = v.seq();
    return s.next < s.items.size() ? s.items[s.next++]
                                   : Value::undefined("no first item, the sequence was empty");
  }
  const Values items = in.items(v);
  return items.empty() ? Value::undefined("no first item, the sequence was empty") : items[0];
}

Value last(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  if (is_flavor(v, Flavor::kIterator)) fail("a generator has no last item; make it a list first");
  const Values items = in.items(v);
  return items.empty() ? Value::undefined("no last item, the sequence was empty") : items.back();
}

Value list(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  return make_list(in.items(v));
}

Value reverse(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  Values items = in.items(v);
  std::reverse(items.begin(), items.end());
  if (v.is_str()) {
    std::string out;
    for (const Value& c : items) out += c.text();
    return in.new_str(std::move(out));
  }
  if (is_flavor(v, Flavor::kIterator)) return make_list(std::move(items));
  return iterator(in, std::move(items), "reversed");
}

Value join(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"d", "attribute"});
  const std::string separator = b.get(0) ? in.str(b.at(0)) : "";
  const bool by_attribute = b.given(1);
  const Values path = by_attribute ? attribute_path(in, b.at(1)) : Values{};
  std::string out;
  bool start = true;
  for (const Value& item : in.items(v)) {
    const Value x = follow(in, item, path);
    in.budget().bytes(separator.size() + (x.is_str() ? x.text().size() : 0));
    if (!start) out += separator;
    start = false;
    out += in.str(x);
  }
  return Value::str(std::move(out));
}

Value items_filter(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {});
  if (v.is_undefined()) return iterator(in, {}, "do_items");
  if (!v.is(Kind::kDict)) fail("only a dict has items, not {}", type_name(v));
  Values out;
  in.budget().bytes(v.dict().items.size(), 3 * kValueBytes);
  for (const auto& [k, x] : v.dict().items) out.push_back(make_tuple({k, x}));
  return iterator(in, std::move(out), "do_items");
}

// Items ordered by key; equal ones keep their order, in reverse too.
Values sorted(Interpreter& in, const Values& items, const Values& keys, bool reversed) {
  std::vector<std::size_t> order(items.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return reversed ? less(keys[b], keys[a], in.budget()) : less(keys[a], keys[b], in.budget());
  });
  Values out;
  for (std::size_t i : order) out.push_back(items[i]);
  return out;
}

Value dictsort(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"case_sensitive", "by", "reverse"});
  const std::string by = b.get(1) ? b.text(1) : "key";
  if (by != "key" && by != "value") fail("a dict is sorted by 'key' or 'value', not '{}'", by);
  if (v.is_undefined()) fail("{}", v.undefined_reason());
  if (!v.is(Kind::kDict)) fail("only a dict can be sorted, not {}", type_name(v));
  Values pairs, keys;
  in.budget().bytes(v.dict().items.size(), 4 * kValueBytes);
  for (const auto& [k, x] : v.dict().items) {
    pairs.push_back(make_tuple({k, x}));
    const Value& key = by == "key" ? k : x;
    keys.push_back(b.flag(0) ? key : lower_text(key));
  }
  return make_list(sorted(in, pairs, keys, b.flag(2)));
}

// Sort keys: the attribute's value, or a list of them for "a,b".
Values sort_keys(Interpreter& in, const Values& items, const Value* attribute, bool case_sensitive) {
  std::vector<Values> paths;
  if (attribute != nullptr && attribute->is_str()) {
    const std::string& s = attribute->text();
    for (std::size_t start = 0; start <= s.size();) {
      const std::size_t end = std::min(s.find(',', start), s.size());
      paths.push_back(attribute_path(in, Value::str(s.substr(start, end - start))));
      start = end + 1;
    }
  } else {
    paths.push_back(attribute_path(in, attribute != nullptr ? *attribute : Value::none()));
  }
  Values keys;
  in.budget().bytes(items.size(), (paths.size() + 2) * kValueBytes);
  for (const Value& item : items) {
    Values parts;
    for (const Values& path : paths) {
      const Value part = follow(in, item, path);
      parts.push_back(case_sensitive ? part : lower_text(part));
    }
    keys.push_back(parts.size() == 1 ? parts[0] : make_list(std::move(parts)));
  }
  return keys;
}

Value sort(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"reverse", "case_sensitive", "attribute"});
  const Values items = in.items(v);
  return make_list(sorted(in, items, sort_keys(in, items, b.get(2), b.flag(1)), b.flag(0)));
}

Value unique(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"case_sensitive", "attribute"});
  const Values path = attribute_path(in, b.get(1) ? b.at(1) : Value::none());
  Values out;
  DictObj seen;
  for (const Value& item : in.items(v)) {
    const Value key = follow(in, item, path);
    const std::size_t before = seen.items.size();
    dict_set(seen, b.flag(0) ? key : lower_text(key), Value::none(), in.budget());
    if (seen.items.size() > before) out.push_back(item);
  }
  return iterator(in, std::move(out), "sync_do_unique");
}

template <bool greatest>
Value extreme(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"case_sensitive", "attribute"});
  const Values path = attribute_path(in, b.get(1) ? b.at(1) : Value::none());
  Value best, best_key;
  bool any = false;
  for (const Value& item : in.items(v)) {
    Value key = follow(in, item, path);
    if (!b.flag(0)) key = lower_text(key);
    if (!any || (greatest ? less(best_key, key, in.budget()) : less(key, best_key, in.budget()))) {
      best = item;
      best_key = key;
    }
    any = true;
  }
  return any ? best : Value::undefined("no aggregated item, the sequence was empty");
}

Value sum(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"attribute", "start"});
  const Values path = attribute_path(in, b.get(0) ? b.at(0) : Value::none());
  Value total = b.get(1) ? b.at(1) : Value::integer(0);
  if (total.is_str()) fail("strings are joined, not summed");
  for (const Value& item : in.items(v)) {
    total = binary_operator(Expr::Op::kAdd, total, follow(in, item, path), in.budget());
  }
  return total;
}

Value groupby(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"attribute", "default", "case_sensitive"}, 1);
  const Values path = attribute_path(in, b.at(0));
  const Values items = in.items(v);
  Values found, keys;
  in.budget().bytes(items.size(), 4 * kValueBytes);
  for (const Value& item : items) {
    found.push_back(follow(in, item, path, b.get(1)));
    keys.push_back(b.flag(2) ? found.back() : lower_text(found.back()));
  }
  Values order;
  for (std::size_t i = 0; i < items.size(); ++i)
    order.push_back(Value::integer(static_cast<std::int64_t>(i)));
  order = sorted(in, order, keys, false);
  Values out, group;
  const auto index = [&](std::size_t i) { return static_cast<std::size_t>(order[i].as_int()); };
  for (std::size_t i = 0, start = 0; i < order.size(); ++i) {
    group.push_back(items[index(i)]);
    if (i + 1 < order.size() && equal(keys[index(i)], keys[index(i + 1)], in.budget())) continue;
    out.push_back(make_seq(Flavor::kTuple, {found[index(start)], make_list(std::move(group))}, "group"));
    group = {};
    start = i + 1;
  }
  return make_list(std::move(out));
}

Value batch(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"linecount", "fill_with"}, 1);
  const std::int64_t size = b.integer(0, 1);
  Values out, line;
  for (const Value& item : in.items(v)) {
    if (static_cast<std::int64_t>(line.size()) == size) {
      out.push_back(in.new_list(std::move(line)));
      line = {};
    }
    line.push_back(item);
  }
  if (!line.empty()) {
    if (b.given(1) && size > static_cast<std::int64_t>(line.size())) {
      in.budget().bytes(static_cast<std::uint64_t>(size), kValueBytes);
      line.resize(static_cast<std::size_t>(size), b.at(1));
    }
    out.push_back(in.new_list(std::move(line)));
  }
  return iterator(in, std::move(out), "sync_do_batch");
}

Value slice_filter(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"slices", "fill_with"}, 1);
  const Values items = in.items(v);
  const std::int64_t n = b.integer(0, 1);
  if (n == 0) fail("division by zero");
  Values out;
  if (n > 0) {
    in.budget().bytes(static_cast<std::uint64_t>(n), 3 * kValueBytes);
    in.budget().step(static_cast<std::uint64_t>(n));
    const std::size_t slices = static_cast<std::size_t>(n), each = items.size() / slices,
                      extra = items.size() % slices;
    std::size_t at = 0;
    for (std::size_t i = 0; i < slices; ++i) {
      const std::size_t size = each + (i < extra ? 1 : 0);
      Values part(items.begin() + static_cast<std::ptrdiff_t>(at),
                  items.begin() + static_cast<std::ptrdiff_t>(at + size));
      if (b.given(1) && i >= extra) part.push_back(b.at(1));
      out.push_back(make_list(std::move(part)));
      at += size;
    }
  }
  return iterator(in, std::move(out), "sync_do_slice");
}

Value map(Interpreter& in, const Value& v, const Args& args) {
  if (!truthy(v)) return iterator(in, {}, "sync_do_map");
  Values out;
  const bool by_attribute =
      args.pos.empty() &&
      std::any_of(args.named.begin(), args.named.end(), [](const auto& a) { return a.first == "attribute"; });
  if (by_attribute) {
    const Bound b("it", args, {"attribute", "default"}, 1);
    const Values path = attribute_path(in, b.at(0));
    for (const Value& item : in.items(v)) out.push_back(follow(in, item, path, b.get(1)));
  } else {
    if (args.pos.empty() || !args.pos[0].is_str()) fail("it needs the name of a filter or attribute=");
    const Args rest{Values(args.pos.begin() + 1, args.pos.end()), args.named};
    for (const Value& item : in.items(v)) out.push_back(in.filter(args.pos[0].text(), item, rest));
  }
  return iterator(in, std::move(out), "sync_do_map");
}

template <bool wanted, bool by_attribute>
Value select(Interpreter& in, const Value& v, const Args& args) {
  constexpr std::string_view kName = by_attribute ? (wanted ? "sync_do_selectattr" : "sync_do_rejectattr")
                                                  : (wanted ? "sync_do_select" : "sync_do_reject");
  if (!truthy(v)) return iterator(in, {}, kName);
  constexpr std::size_t kTest = by_attribute ? 1 : 0;
  if (args.pos.size() < kTest) fail("it needs the attribute's name");
  const Values path = by_attribute ? attribute_path(in, args.pos[0]) : Values{};
  const bool tested = args.pos.size() > kTest;
  if (tested && !args.pos[kTest].is_str()) fail("the test's name must be a string");
  Args rest;
  if (tested) rest = Args{Values(args.pos.begin() + kTest + 1, args.pos.end()), args.named};
  Values out;
  for (const Value& item : in.items(v)) {
    const Value x = follow(in, item, path);
    if ((tested ? in.test(args.pos[kTest].text(), x, rest) : truthy(x)) == wanted) out.push_back(item);
  }
  return iterator(in, std::move(out), kName);
}

Value attr(Interpreter& in, const Value& v, const Args& args) {
  const Bound b("it", args, {"name"}, 1);
  const std::string& name = b.text(0);
  // Attributes only: an item of a dict is none, even under the same name.
  if (v.is(Kind::kDict) && find_container_method(v, name) == nullptr) {
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", name));
  }
  return in.get_attr(v, name);
}

constexpr Named<FilterFn> kFilters[] = {
    {"length", length_filter},
    {"count", length_filter},
    {"first", first},
    {"last", last},
    {"list", list},
    {"reverse", reverse},
    {"join", join},
    {"items", items_filter},
    {"dictsort", dictsort},
    {"sort", sort},
    {"unique", unique},
    {"min", extreme<false>},
    {"max", extreme<true>},
    {"sum", sum},
    {"groupby", groupby},
    {"batch", batch},
    {"slice", slice_filter},
    {"map", map},
    {"select", select<true, false>},
    {"reject", select<false, false>},
    {"selectattr", select<true, true>},
    {"rejectattr", select<false, true>},
    {"attr", attr},
};

}  // namespace

FilterFn find_sequence_filter(std::string_view name) { return find_in(kFilters, name); }

FilterFn find_filter(std::string_view name) {
  const FilterFn fn = find_text_filter(name);
  return fn != nullptr ? fn : find_sequence_filter(name);
}

Value Interpreter::filter(const std::string& name, const Value& input, const Args& args) {
  budget_.step();
  const FilterFn fn = find_filter(name);
  if (fn == nullptr) fail("there is no filter named '{}'", name);
  if (++depth_ > depth_limit_) fail("the template's macros or expressions are nested too deep");
  Value v = fn(*this, input, args);
  --depth_;
  return v;
}

}  // namespace narrow::text::jinja

// Global functions.
#include <algorithm>
#include <ctime>

#include "text/jinja/builtins.h"

namespace narrow::text::jinja {
namespace {

constexpr std::uint64_t kMaxRange = 100'000;  // jinja2's sandbox

Value range(Interpreter& in, const Args& args) {
  if (!args.named.empty()) fail("range() takes no named arguments");
  const Bound b("range()", args, {"start", "stop", "step"}, 1);
  const std::int64_t start = b.get(1) ? b.integer(0, 0) : 0;
  const std::int64_t stop = b.get(1) ? b.integer(1, 0) : b.integer(0, 0);
  const std::int64_t step = b.integer(2, 1);
  if (step == 0) fail("range(): the step is zero");
  Values items;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() >= kMaxRange) fail("range() is limited to {} items", kMaxRange);
    in.budget().step();
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  in.budget().bytes(items.size(), kValueBytes);
  std::string label = step == 1 ? fmt::format("range({}, {})", start, stop)
                                : fmt::format("range({}, {}, {})", start, stop, step);
  return make_seq(SeqObj::Flavor::kRange, std::move(items), std::move(label));
}

// dict() and namespace(): a mapping or pairs, then named arguments.
DictObj gather(Interpreter& in, std::string_view function, const Args& args) {
  if (args.pos.size() > 1) fail("{} takes at most one positional argument", function);
  DictObj d;
  if (!args.pos.empty()) {
    const Value& from = args.pos[0];
    if (from.is(Kind::kDict)) {
      in.budget().bytes(from.dict().items.size(), 2 * kValueBytes);
      d.items = from.dict().items;
    } else {
      for (const Value& pair : in.items(from)) {
        const Values kv = in.items(pair);
        if (kv.size() != 2) fail("{}: each element must be a pair, found {} values", function, kv.size());
        dict_set(d, kv[0], kv[1], in.budget());
      }
    }
  }
  for (const auto& [k, v] : args.named) dict_set(d, Value::str(k), v, in.budget());
  return d;
}

Value dict(Interpreter& in, const Args& args) { return make_dict(gather(in, "dict()", args)); }

Value make_ns(Interpreter& in, const Args& args) {
  const DictObj d = gather(in, "namespace()", args);
  NamespaceObj* ns = in.make_namespace();
  for (const auto& [k, v] : d.items) {
    if (k.is_str()) ns->set(k.text(), v);
  }
  return Value::make(ns);
}

Value joiner(Interpreter& in, const Args& args) {
  const Bound b("joiner()", args, {"sep"});
  const Value sep = Value::str(b.get(0) ? in.str(b.at(0)) : ", ");
  auto used = std::make_shared<bool>(false);
  return make_function("joiner", [sep, used](Interpreter&, const Args& inner) {
    const Bound none("joiner", inner, {});
    return std::exchange(*used, true) ? sep : Value::str("");
  });
}

Value cycler(Interpreter& in, const Args& args) {
  if (args.pos.empty() || !args.named.empty()) fail("cycler() needs the items to cycle through");
  const Value items = make_list(args.pos);
  NamespaceObj* ns = in.make_namespace();
  auto position = std::make_shared<std::size_t>(0);
  ns->set("current", args.pos[0]);
  ns->set("next", make_function(
                      "next",
                      [items, ns, position](Interpreter&, const Args& inner) {
                        const Bound none("next()", inner, {});
                        const Values& all = items.seq().items;
                        Value v = all[*position];
                        *position = (*position + 1) % all.size();
                        ns->set("current", all[*position]);
                        return v;
                      },
                      items.depth()));
  ns->set("reset", make_function(
                       "reset",
                       [items, ns, position](Interpreter&, const Args& inner) {
                         const Bound none("reset()", inner, {});
                         *position = 0;
                         ns->set("current", items.seq().items[0]);
                         return Value::none();
                       },
                       items.depth()));
  return Value::make(ns);
}

Value raise_exception(Interpreter& in, const Args& args) {
  const Bound b("raise_exception()", args, {"message"}, 1);
  TemplateError e{in.str(b.at(0))};
  e.raised = true;
  throw e;
}

Value strftime_now(Interpreter& in, const Args& args) {
  const Bound b("strftime_now()", args, {"format"}, 1);
  const std::string& format = b.text(0);
  if (format.empty()) return Value::str("");
  if (format.size() > 1024) fail("strftime_now(): the format is longer than 1024 bytes");
  const std::time_t now = in.now();
  std::tm local{};
  if (localtime_r(&now, &local) == nullptr) fail("strftime_now(): the time is out of range");
  std::string out(16384, '\0');
  in.budget().bytes(out.size());
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  return Value::str(std::move(out));
}

}  // namespace

Values global_functions() {
  return {
      make_function("range", range),
      make_function("dict", dict),
      make_function("namespace", make_ns),
      make_function("joiner", joiner),
      make_function("cycler", cycler),
      make_function("raise_exception", raise_exception),
      make_function("strftime_now", strftime_now),
  };
}

}  // namespace narrow::text::jinja

// Renders templates with Python's jinja2, set up as transformers does it, to compare with.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "testing/testing.h"
#include "text/chat_template.h"

namespace narrow::text {

struct RenderCase {
  std::string name, source;
  ChatRenderOptions options;
};

struct Rendered {
  bool ok = false;
  std::string text;  // or the error
};

inline constexpr const char* kJinjaOracle = R"py(
import datetime, json, sys
import jinja2, jinja2.ext, jinja2.sandbox

class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)
    def _body(self, caller):
        return caller()

def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)

def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

now = None
env = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda format: now.strftime(format)
templates = {}
results = []
for case in json.load(open(sys.argv[1], encoding="utf-8")):
    now = datetime.datetime.fromtimestamp(case["now"])
    try:
        if case["source"] not in templates:
            templates[case["source"]] = env.from_string(case["source"])
        text = templates[case["source"]].render(**case["variables"])
        text.encode("utf-8")
        results.append({"ok": True, "text": text})
    except Exception as e:
        results.append({"ok": False, "text": type(e).__name__ + ": " + str(e)})
json.dump(results, sys.stdout, ensure_ascii=True)
)py";

inline constexpr std::time_t kFrozenTime = 1722001234;

inline std::vector<Rendered> render_with_jinja2(const std::vector<RenderCase>& cases) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const RenderCase& c : cases) {
    nlohmann::ordered_json v = {{"messages", c.options.messages},
                                {"tools", c.options.tools},
                                {"documents", nullptr},
                                {"add_generation_prompt", c.options.add_generation_prompt}};
    if (!c.options.bos_token.empty()) v["bos_token"] = c.options.bos_token;
    if (!c.options.eos_token.empty()) v["eos_token"] = c.options.eos_token;
    for (const auto& [name, value] : c.options.extra.items()) v[name] = value;
    all.push_back({{"source", c.source}, {"variables", v}, {"now", kFrozenTime}});
  }
  const testing::TempDir dir;
  testing::write_file(dir / "cases.json", all.dump());
  const std::string out = testing::run_python(kJinjaOracle, {(dir / "cases.json").string()});
  std::vector<Rendered> results;
  const auto parsed = nlohmann::json::parse(out, nullptr, false);
  for (const auto& r : parsed) results.push_back({r["ok"].get<bool>(), r["text"].get<std::string>()});
  return results;
}

inline Rendered render_here(const RenderCase& c) {
  const auto t = ChatTemplate::parse(c.source);
  if (!t.ok()) return {false, t.error().message};
  ChatRenderOptions options = c.options;
  options.now = kFrozenTime;
  auto text = t.value().render(options);
  if (!text.ok()) return {false, text.error().message};
  return {true, std::move(text).value()};
}

// All cases at once in one Python process; the number of cases that both render.
inline int expect_same_as_jinja2(const std::vector<RenderCase>& cases) {
  const std::vector<Rendered> expected = render_with_jinja2(cases);
  EXPECT_EQ(expected.size(), cases.size());
  int rendered = 0;
  for (std::size_t i = 0; i < std::min(cases.size(), expected.size()); ++i) {
    const Rendered got = render_here(cases[i]);
    EXPECT_EQ(got.ok, expected[i].ok)
        << cases[i].name << "\n here: " << got.text << "\n jinja2: " << expected[i].text;
    if (expected[i].ok && got.ok) {
      EXPECT_EQ(got.text, expected[i].text) << cases[i].name;
      ++rendered;
    }
    // An error is one line that says where.
    if (!got.ok) {
      EXPECT_EQ(got.text.rfind("chat template, ", 0), 0u) << got.text;
    }
  }
  return rendered;
}

}  // namespace narrow::text

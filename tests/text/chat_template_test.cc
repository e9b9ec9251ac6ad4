// Real models' chat templates against Python's jinja2, and what a hostile template may not do.
#include "text/chat_template.h"

#include <algorithm>
#include <filesystem>

#include "text/jinja_oracle.h"

namespace narrow::text {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const char* const kTools = R"json([
  {"type": "function", "function": {"name": "get_weather", "description": "Météo d'une ville <\"x\"> & more",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city,\nby name"},
      "days": {"type": "integer", "enum": [1, 2.5, null, true]}}, "required": ["city"]}, "return": {"type": "string"}}},
  {"type": "function", "function": {"name": "noop", "description": "", "parameters": {}}}])json";

// Conversations without a system message; a nameless one is put in front for the other half of the cases.
const std::vector<std::pair<std::string, const char*>> kConversations = {
    {"single", R"([{"role": "user", "content": "Hello, who are you?"}])"},
    {"multi",
     R"([{"role": "user", "content": "Grüße 世界 🌍\n\n  \"quoted\" 'single' \\ <tag> & {{ not jinja }}  "},
       {"role": "assistant", "content": "\n\n Sure!\tTabs\r\nand more\n"}, {"role": "user", "content": ""},
       {"role": "assistant", "content": "ok"}, {"role": "user", "content": "last"}])"},
    {"ends_with_assistant", R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])"},
    {"reasoning_text", R"([{"role": "user", "content": "2+2?"},
       {"role": "assistant", "content": "<think>\nlet me see\n</think>\n\n4"}, {"role": "user", "content": "sure? /no_think"},
       {"role": "assistant", "content": "<think>\nhm\n</think>\nyes"}])"},
    {"reasoning_field", R"([{"role": "user", "content": "2+2?"},
       {"role": "assistant", "content": "4", "reasoning_content": "\nadd\n"}, {"role": "user", "content": "and 3+3?"},
       {"role": "assistant", "reasoning_content": "more", "content": "6"}])"},
    {"tool_call", R"([{"role": "user", "content": "Weather?"},
       {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdef123", "type": "function",
          "function": {"name": "get_weather", "arguments": {"city": "Köln \"x\"", "days": 2, "f": 1.0}}}]},
       {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"t\": 21.5}"},
       {"role": "assistant", "content": "It is 21.5 degrees."}, {"role": "user", "content": "thanks"}])"},
    {"tool_call_null_content", R"([{"role": "user", "content": "Weather?"},
       {"role": "assistant", "content": null, "tool_calls": [{"id": "abcdef123", "type": "function",
          "function": {"name": "get_weather", "arguments": "{\"city\": \"Köln\"}"}}]},
       {"role": "tool", "tool_call_id": "abcdef123", "content": "21.5"}])"},
    {"two_tool_calls", R"([{"role": "user", "content": "Weather?"},
       {"role": "assistant", "content": "Looking.", "tool_calls": [
          {"id": "abcdef123", "type": "function", "function": {"name": "a", "arguments": {}}},
          {"id": "abcdef124", "type": "function", "function": {"name": "b", "arguments": {"x": [1, {"y": null}]}}}]},
       {"role": "tool", "tool_call_id": "abcdef123", "content": "1"},
       {"role": "tool", "tool_call_id": "abcdef124", "content": {"content": "2"}},
       {"role": "user", "content": "go on"}])"},
    {"bare_tool_call", R"([{"role": "user", "content": "x"},
       {"role": "assistant", "content": "y", "tool_calls": [{"name": "f", "arguments": {"k": false}}]},
       {"role": "tool", "content": [1, "two"]}])"},
    {"parts", R"([{"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "image"},
       {"type": "text", "text": "  two "}]}, {"role": "assistant", "content": [{"type": "text", "text": "seen"}]},
       {"role": "user", "content": "plain"}])"},
    {"wrong_order", R"([{"role": "assistant", "content": "first"}, {"role": "user", "content": "second"}])"},
    {"unknown_role", R"([{"role": "critic", "content": "no"}, {"role": "user", "content": "x"}])"},
    {"no_content", R"([{"role": "user"}])"},
    {"empty", R"([])"},
};

void add_cases(const std::string& name, const std::string& source, const std::vector<Json>& extras,
               std::vector<RenderCase>& cases) {
  for (const auto& [label, text] : kConversations) {
    for (int bits = 0; bits < 8; ++bits) {
      for (const Json& extra : extras) {
        RenderCase c;
        c.source = source;
        c.options.messages = Json::parse(text);
        if (bits & 1) {
          c.options.messages.insert(c.options.messages.begin(),
                                    Json{{"role", "system"}, {"content", " You are terse. /think \n"}});
        }
        if (bits & 2) c.options.tools = Json::parse(kTools);
        c.options.add_generation_prompt = (bits & 4) != 0;
        c.options.bos_token = "<s>";
        c.options.eos_token = "</s>";
        c.options.extra = extra;
        c.name = fmt::format("{} {}{}{}{} {}", name, label, bits & 1 ? " system" : "",
                             bits & 2 ? " tools" : "", bits & 4 ? " prompt" : "", extra.dump());
        cases.push_back(std::move(c));
      }
    }
  }
}

TEST(ChatTemplate, RealTemplatesRenderAsJinja2Does) {
  NARROW_REQUIRE_SHARED();
  NARROW_REQUIRE_PYTHON();
  std::vector<fs::path> files;
  for (const auto& e : fs::directory_iterator(testing::shared_data() / "templates")) {
    if (e.path().extension() == ".jinja") files.push_back(e.path());
  }
  std::sort(files.begin(), files.end());
  ASSERT_GE(files.size(), 8u);
  std::vector<RenderCase> cases;
  for (const fs::path& f : files) {
    std::vector<Json> extras = {Json::object()};
    const std::string name = f.filename().string();
    if (name.find("Qwen3") != name.npos || name.find("SmolLM3") != name.npos) {
      extras = {Json::object(), {{"enable_thinking", false}}, {{"enable_thinking", true}}};
    } else if (name.find("Llama-3") != name.npos) {
      extras = {Json::object(), {{"tools_in_user_message", false}, {"date_string", "1 Jan 2025"}}};
    }
    add_cases(name, testing::read_file(f), extras, cases);
  }
  const int rendered = expect_same_as_jinja2(cases);
  RecordProperty("cases", static_cast<int>(cases.size()));
  RecordProperty("rendered", rendered);
  EXPECT_GT(rendered, static_cast<int>(cases.size() / 2));
}

TEST(ChatTemplate, TemplatesOfDownloadedModels) {
  NARROW_REQUIRE_PYTHON();
  std::vector<RenderCase> cases;
  for (const char* file : {"smollm2-q4_1.gguf", "gemma3-270m-q4_k_m.gguf"}) {
    const fs::path path = testing::cache_dir() / "models" / file;
    if (!fs::exists(path)) continue;
    const std::string source = testing::run_python(
        "import sys\nfrom gguf import GGUFReader\n"
        "f = GGUFReader(sys.argv[1]).fields.get('tokenizer.chat_template')\n"
        "sys.stdout.buffer.write(bytes(f.parts[f.data[0]]) if f else b'')",
        {path.string()});
    if (!source.empty()) add_cases(file, source, {Json::object()}, cases);
  }
  if (cases.empty()) GTEST_SKIP() << "no models in " << testing::cache_dir();
  EXPECT_GT(expect_same_as_jinja2(cases), 50);
}

Result<std::string> render(const std::string& source, const ChatRenderOptions& options = {}) {
  NARROW_ASSIGN(const ChatTemplate t, ChatTemplate::parse(source));
  return t.render(options);
}

TEST(ChatTemplate, ErrorsSayWhere) {
  const auto parsed = ChatTemplate::parse("line one\n  {% if x %}\n{{ 1 +* }}");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(parsed.error().message, "chat template, 3:7: unexpected '*'");

  const auto undefined = render("\n\n{{ messages[0].content.x }}");
  ASSERT_FALSE(undefined.ok());
  EXPECT_EQ(undefined.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(undefined.error().message,
            "chat template, line 3: list object has no element 0 (in messages[0].content)");

  const auto raised = render("a\n{{ raise_exception('roles must alternate') }}");
  ASSERT_FALSE(raised.ok());
  EXPECT_EQ(raised.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(raised.error().message, "chat template, line 2: roles must alternate");

  EXPECT_FALSE(ChatTemplate().render({}).ok());
}

TEST(ChatTemplate, HostileTemplatesEndInAnError) {
  std::string deep_list =
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";
  std::string parens, brackets, nots, minus, ifs, sums, filters, attrs;
  for (int i = 0; i < 100000; ++i) {
    parens += "(";
    brackets += "[";
    nots += "not ";
    minus += "- ";
    ifs += "{% if 1 %}";
    sums += "1 + ";
    filters += " | string";
    attrs += ".a";
  }
  const std::vector<std::string> sources = {
      deep_list,
      "{{ " + parens,
      "{{ " + brackets,
      "{{ " + nots + "1 }}",
      "{{ " + minus + "1 }}",
      ifs,
      "{{ " + sums + "1 }}",
      "{{ 1" + filters + " }}",
      "{{ a" + attrs + " }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% "
      "endmacro %}{{ n() }}",
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% "
      "endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ "
      "ns.s }}",
      "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% set "
      "ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ "
      "ns.s | tojson }}",
      "{{ 'a' * 99999999999 }}",
      "{{ [1] * 9223372036854775807 }}",
      "{{ 'abc' | center(9999999999) }}",
      "{{ '%99999999d' % 1 }}",
      "{{ '%.*f' % (99999999, 1.0) }}",
      "{{ '{:99999999}'.format(1) }}",
      "{{ 'a' | indent(99999999999) }}",
      "{{ [1] | batch(99999999999, 1) | list }}",
      "{{ [1] | slice(99999999999) | list }}",
      "{{ [1] | tojson(indent=99999999999) }}",
      "{{ 2 ** 99999 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ -(-9223372036854775807 - 1) }}",
      "{{ (-9223372036854775807 - 1) | abs }}",
      "{{ 99999999999999999999 }}",
      "{{ 'a'.replace('', 'b' * 1000000).replace('', 'c' * 1000000) }}",
      "{{ 1e308 | int }}",
      "{% set ns = namespace(f=1) %}{% for i in range(100000) %}{% set ns.f = [ns.f].index %}{% endfor %}",
  };
  for (const std::string& s : sources) {
    const auto r = render(s);
    EXPECT_FALSE(r.ok()) << s.substr(0, 200);
    if (!r.ok()) {
      EXPECT_LT(r.error().message.size(), 400u) << s.substr(0, 200);
    }
  }
}

TEST(ChatTemplate, OddTemplatesDoNotCrash) {
  // Namespaces that hold each other, loops and macros that outlive their place.
  EXPECT_OK(render("{% set a = namespace() %}{% set a.self = a %}{{ a }}{{ a == a.self }}"));
  EXPECT_OK(
      render("{% set a = namespace() %}{% for i in range(20000) %}{% set b = namespace(n=a.n) %}{% set a.n = "
             "b %}{% endfor %}"));
  EXPECT_OK(
      render("{% set a = namespace() %}{% for i in [1, 2] %}{% set a.l = loop %}{% endfor %}{{ a.l.index "
             "}}{{ a.l.last }}"));
  EXPECT_OK(render("{% for i in [1, 2] %}{{ loop.changed(loop) }}{{ loop.changed([loop]) }}{% endfor %}"));
  const auto kept = render(
      "{% set a = namespace() %}{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{% set a.m = m %}{% "
      "endfor %}{{ a.m() }}");
  ASSERT_OK(kept);
  EXPECT_EQ(kept.value(), "2");
  // The same compiled template, many times and at once, gives the same text.
  ASSERT_OK_AND_ASSIGN(const ChatTemplate t,
                       ChatTemplate::parse("{% for m in messages %}{{ m.content }}{% endfor %}"));
  ChatRenderOptions options;
  options.messages = Json::parse(R"([{"content": "a"}, {"content": "b"}])");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(t.render(options).value(), "ab");
}

TEST(ChatTemplate, EveryPrefixAndDamagedCopyOfATemplateIsHandled) {
  NARROW_REQUIRE_SHARED();
  const std::string source =
      testing::read_file(testing::shared_data() / "templates" / "Qwen-Qwen3-0.6B.jinja");
  ChatRenderOptions options;
  options.messages = Json::parse(kConversations[5].second);
  options.tools = Json::parse(kTools);
  std::uint32_t random = 12345;
  for (std::size_t n = 0; n < source.size(); n += 7) {
    std::string damaged = source.substr(0, n);
    (void)render(damaged, options);
    damaged = source;
    random = random * 1664525 + 1013904223;
    damaged[random % damaged.size()] = "{}%'\"()[]|-#\\\xff\x80"[(random >> 24) % 16];
    damaged.erase((random >> 8) % damaged.size(), 1 + (random >> 28));
    (void)render(damaged, options);
  }
}

}  // namespace
}  // namespace narrow::text

// Any bytes as a chat template, with a conversation that has every kind of value.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "text/jinja/builtins.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace narrow::text::jinja;
  static const auto kVariables = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "user", "content": "a\nb ü"}, {"role": "assistant", "content": null,
      "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}]}],
    "tools": [], "add_generation_prompt": true, "n": 3})");
  if (size > 65536) return 0;
  try {
    const Body body = parse_template(std::string_view(reinterpret_cast<const char*>(data), size));
    check_names(body);
    Interpreter in(Limits{200'000, 16 * 1024 * 1024, 300}, 0);
    for (const auto& [name, value] : kVariables.items()) in.define(name, from_json(value));
    in.run(body);
  } catch (const TemplateError&) {
  }
  return 0;
}

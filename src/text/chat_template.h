// Chat templates: the Jinja subset that model files use, rendered as transformers does it
// (trim_blocks, lstrip_blocks, loop controls, raise_exception, strftime_now, tojson without HTML escapes).
#pragma once

#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace narrow::text {

struct ChatRenderOptions {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();  // [{"role": ..., "content": ...}, ...]
  nlohmann::ordered_json tools;                                       // array, or null for none
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();  // further variables, e.g. enable_thinking
  bool add_generation_prompt = true;
  std::string bos_token, eos_token;
  std::optional<std::time_t> now;  // for strftime_now; unset: the clock
};

class ChatTemplate {
 public:
  // kCorrupt with line and column for a template that does not parse.
  static Result<ChatTemplate> parse(std::string_view source);
  // The template's own raise_exception(...) becomes kInvalidArgument with its text. Bounded in steps,
  // recursion and output size, so that a hostile template ends in an error.
  Result<std::string> render(const ChatRenderOptions& options) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace narrow::text

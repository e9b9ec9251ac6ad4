#include "text/chat_template.h"

#include <new>

#include "text/jinja/builtins.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace narrow::text {

namespace {

constexpr std::size_t kMaxTemplateBytes = 4 * 1024 * 1024;

Error run_error(const jinja::TemplateError& e, const jinja::Interpreter& in) {
  if (e.raised) {
    return make_error(ErrorCode::kInvalidArgument, "chat template, line {}: {}", in.line(), e.message);
  }
  const std::string where = in.last_expr() != nullptr ? jinja::describe(*in.last_expr()) : std::string();
  return make_error(ErrorCode::kInvalidArgument, "chat template, line {}: {}{}", in.line(), e.message,
                    where.empty() ? "" : " (in " + where + ")");
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Body body;
};

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return make_error(ErrorCode::kCorrupt, "chat template: {} bytes exceed the limit of {}", source.size(),
                      kMaxTemplateBytes);
  }
  try {
    auto impl = std::make_shared<Impl>();
    impl->body = jinja::parse_template(source);
    jinja::check_names(impl->body);
    ChatTemplate t;
    t.impl_ = std::move(impl);
    return t;
  } catch (const jinja::TemplateError& e) {
    return make_error(ErrorCode::kCorrupt, "chat template, {}:{}: {}", e.line, e.column, e.message);
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "chat template: not enough memory to parse {} bytes",
                      source.size());
  }
}

Result<std::string> ChatTemplate::render(const ChatRenderOptions& options) const {
  if (!impl_) return make_error(ErrorCode::kInvalidArgument, "chat template: nothing was parsed");
  if (!options.extra.is_object() && !options.extra.is_null()) {
    return make_error(ErrorCode::kInvalidArgument, "chat template: the extra variables must be an object");
  }
  try {
    jinja::Interpreter in(jinja::Limits{}, options.now);
    try {
      in.define("messages", jinja::from_json(options.messages));
      in.define("tools", jinja::from_json(options.tools));
      in.define("documents", jinja::Value::none());
      in.define("add_generation_prompt", jinja::Value::boolean(options.add_generation_prompt));
      if (!options.bos_token.empty()) in.define("bos_token", jinja::Value::str(options.bos_token));
      if (!options.eos_token.empty()) in.define("eos_token", jinja::Value::str(options.eos_token));
      if (options.extra.is_object()) {
        for (const auto& [name, value] : options.extra.items()) in.define(name, jinja::from_json(value));
      }
      return in.run(impl_->body);
    } catch (const jinja::TemplateError& e) {
      return run_error(e, in);
    }
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "chat template: not enough memory to render");
  }
}

}  // namespace narrow::text

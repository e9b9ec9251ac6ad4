#include "pipeline/text_reader.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "io/hf_config/json_text.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using io::Json;

// Plain text is cut into tokens in stretches of about this size, at line ends: tokenizers need many times
// the memory of their text.
constexpr std::size_t kStretchBytes = 1u << 20;

// The text of a message: a string, or OpenAI's list of parts, of which text alone can be used.
Result<std::string> content_of(const Json& message, const std::string& where) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return std::string();
  if (content->is_string()) return content->get<std::string>();
  std::string out;
  if (content->is_array()) {
    for (const Json& part : *content) {
      if (part.is_object() && part.contains("text") && part["text"].is_string()) {
        out += part["text"].get<std::string>();
      }
    }
    return out;
  }
  return make_error(ErrorCode::kCorrupt, "{}: a message's \"content\" is neither text nor a list of parts",
                    where);
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// How many ids two texts begin with in common.
std::size_t common_prefix(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

TextReader::TextReader(const text::Tokenizer& tokenizer, fs::path model, ProgressSink& progress,
                       TextReaderOptions options)
    : tokenizer_(tokenizer), model_(std::move(model)), progress_(progress), options_(std::move(options)) {}

Result<std::vector<TokenDocument>> TextReader::read(const fs::path& file) {
  NARROW_ASSIGN(const std::string text, read_text_file(file, kMaxTextBytes));
  Documents out;
  NARROW_TRY(file.extension() == ".jsonl" ? lines(file.string(), text, out) : plain(text, out));
  return out;
}

Status TextReader::plain(std::string_view text, Documents& out) {
  text::EncodeTextOptions encode;
  encode.add_special = false;
  encode.parse_special = false;
  TokenDocument& document = out.emplace_back();
  std::vector<std::int32_t>& ids = document.ids;
  while (!text.empty()) {
    if (progress_.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    std::size_t n = text.size() <= kStretchBytes ? std::string_view::npos : text.rfind('\n', kStretchBytes);
    n = n == std::string_view::npos ? text.size() : n + 1;
    NARROW_ASSIGN(const auto piece, tokenizer_.encode(text.substr(0, n), encode));
    ids.insert(ids.end(), piece.begin(), piece.end());
    text.remove_prefix(n);
  }
  if (options_.mark_answers) document.answers.assign(ids.size(), 1);
  return {};
}

Status TextReader::lines(const std::string& file, std::string_view text, Documents& out) {
  Refusals refused;
  std::size_t line_no = 0;
  while (!text.empty()) {
    if (progress_.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_no;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", file, line_no);
    NARROW_ASSIGN(const Json j, io::parse_json(line, where));
    if (j.is_object() && j.contains("text") && j["text"].is_string()) {
      NARROW_TRY(plain(j["text"].get<std::string>(), out));
      continue;
    }
    NARROW_TRY(conversation(j, where, out, refused));
  }
  if (refused.count > 0 && out.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: the model's chat template refuses all {} conversations: {}", file, refused.count,
                      refused.reason);
  }
  if (refused.count > 0) {
    progress_.note(fmt::format("{}: {} of {} conversations left out: the model's chat template refuses: {}",
                               file, refused.count, refused.count + out.size(), refused.reason));
  }
  return {};
}

Status TextReader::conversation(const Json& j, const std::string& where, Documents& out, Refusals& refused) {
  if (!j.is_object() || !j.contains("messages") || !j["messages"].is_array() || j["messages"].empty()) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: no conversation: give {{\"messages\": [{{\"role\": \"user\", \"content\": "
                      "\"...\"}}, ...]}} or {{\"text\": \"...\"}}",
                      where);
  }
  NARROW_TRY(open_template());
  const text::TokenizerSpec& spec = tokenizer_.spec();
  const auto token_text = [&](std::optional<std::int32_t> id) {
    return id ? spec.tokens[static_cast<std::size_t>(*id)] : std::string();
  };
  text::ChatRenderOptions render;
  render.add_generation_prompt = false;
  render.bos_token = token_text(spec.bos);
  render.eos_token = token_text(spec.eos);
  render.now = 0;  // the same tokens on every day
  for (const Json& message : j["messages"]) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      return make_error(ErrorCode::kCorrupt, "{}: a message without a \"role\"", where);
    }
    Json m = message;
    NARROW_ASSIGN(m["content"], content_of(message, where));
    render.messages.push_back(std::move(m));
  }
  if (j.contains("tools")) render.tools = j["tools"];
  const auto rendered = template_->render(render);
  if (!rendered.ok()) {
    ++refused.count;
    if (refused.reason.empty()) refused.reason = rendered.error().message;
    return {};
  }
  NARROW_ASSIGN(TokenDocument document, tokens_of(render, *rendered));
  if (!document.ids.empty()) out.push_back(std::move(document));
  return {};
}

Result<TokenDocument> TextReader::tokens_of(const text::ChatRenderOptions& messages,
                                            const std::string& rendered) {
  text::EncodeTextOptions encode;
  encode.add_special = false;  // the template writes its own
  TokenDocument out;
  out.conversation = true;
  NARROW_ASSIGN(out.ids, tokenizer_.encode(rendered, encode));
  if (options_.mark_answers) NARROW_TRY(mark_answers(messages, rendered, out));
  // Every window gets a BOS where the model wants one.
  const text::TokenizerSpec& spec = tokenizer_.spec();
  if (spec.add_bos && spec.bos && !out.ids.empty() && out.ids[0] == *spec.bos) {
    out.ids.erase(out.ids.begin());
    if (options_.mark_answers) out.answers.erase(out.answers.begin());
  }
  return out;
}

// An answer begins where the text rendered up to it, with what asks for an answer, ends. Templates may render
// a turn otherwise once others follow it (thoughts left out), so that an answer's end is where its text ends
// in the whole conversation; the token after it ends the turn, and is the answer's as well. Turns that cannot
// be found that way count for nothing.
Status TextReader::mark_answers(const text::ChatRenderOptions& messages, const std::string& rendered,
                                TokenDocument& document) {
  document.answers.assign(document.ids.size(), 0);
  text::EncodeTextOptions encode;
  encode.add_special = false;
  const auto ids_before = [&](std::size_t bytes) -> Result<std::size_t> {
    NARROW_ASSIGN(const auto prefix, tokenizer_.encode(std::string_view(rendered).substr(0, bytes), encode));
    return common_prefix(prefix, document.ids);
  };
  text::ChatRenderOptions part = messages;
  part.messages = Json::array();
  for (const Json& message : messages.messages) {
    if (message["role"].get_ref<const std::string&>() != "assistant") {
      part.messages.push_back(message);
      continue;
    }
    std::string before;
    for (const bool asks : {true, false}) {
      part.add_generation_prompt = asks;
      const auto prompt =
          part.messages.empty() ? Result<std::string>(std::string()) : template_->render(part);
      if (prompt.ok() && rendered.starts_with(*prompt)) {
        before = *prompt;
        break;
      }
    }
    const bool found = !before.empty() || part.messages.empty();
    part.messages.push_back(message);
    if (!found) continue;
    const auto content = trimmed(message["content"].get_ref<const std::string&>());
    std::size_t at = rendered.find(content, before.size());
    // Of an answer that a template cuts (the thoughts before its text), the end is there at least.
    if (at == std::string::npos) {
      const std::string_view tail = content.substr(content.find_last_of('\n') + 1);
      at = rendered.find(tail, before.size());
      if (at == std::string::npos) continue;
      at += tail.size();
    } else {
      at += content.size();
    }
    at = std::min(rendered.find_first_not_of(" \t\r\n", at), rendered.size());
    NARROW_ASSIGN(const std::size_t first, ids_before(before.size()));
    NARROW_ASSIGN(std::size_t last, ids_before(at));
    if (last < document.ids.size() && tokenizer_.is_special(document.ids[last])) ++last;
    std::fill(document.answers.begin() + static_cast<std::ptrdiff_t>(std::min(first, last)),
              document.answers.begin() + static_cast<std::ptrdiff_t>(last), std::uint8_t{1});
  }
  return {};
}

Status TextReader::open_template() {
  if (template_) return {};
  const std::string& source = tokenizer_.spec().chat_template;
  if (source.empty()) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: the model has no chat template: {} it on plain text (.txt)", model_.string(),
                      options_.purpose);
  }
  NARROW_ASSIGN(template_, text::ChatTemplate::parse(source));
  return {};
}

}  // namespace narrow::pipeline

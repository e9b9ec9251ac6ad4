#include "pipeline/calibration_text.h"

#include <algorithm>
#include <optional>

#include "base/atomic_file.h"
#include "io/hf_config/json_text.h"
#include "pipeline/tokenizer.h"
#include "text/chat_template.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using calib::TokenText;
using io::Json;

constexpr std::uint64_t kMaxTextBytes = 1ull << 32;
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

class Reader {
 public:
  Reader(const text::Tokenizer& tokenizer, const model::ModelSource& source, ProgressSink& progress)
      : tokenizer_(tokenizer), source_(source), progress_(progress) {}

  Result<TokenText> read(const fs::path& file) {
    NARROW_ASSIGN(const std::string text, read_text_file(file, kMaxTextBytes));
    TokenText out;
    out.name = file.filename().string();
    NARROW_TRY(file.extension() == ".jsonl" ? chats(file.string(), text, out) : plain(text, out));
    return out;
  }

 private:
  Status plain(std::string_view text, TokenText& out) {
    text::EncodeTextOptions encode;
    encode.add_special = false;
    encode.parse_special = false;
    std::vector<std::int32_t>& ids = out.documents.emplace_back();
    while (!text.empty()) {
      if (progress_.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      std::size_t n = text.size() <= kStretchBytes ? std::string_view::npos : text.rfind('\n', kStretchBytes);
      n = n == std::string_view::npos ? text.size() : n + 1;
      NARROW_ASSIGN(const auto piece, tokenizer_.encode(text.substr(0, n), encode));
      ids.insert(ids.end(), piece.begin(), piece.end());
      text.remove_prefix(n);
    }
    return {};
  }

  Status chats(const std::string& file, std::string_view text, TokenText& out) {
    std::size_t refused = 0, line_no = 0;
    std::string reason;
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
      NARROW_TRY(chat(j, where, out, refused, reason));
    }
    if (refused > 0 && out.documents.empty()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: the model's chat template refuses all {} conversations: {}", file, refused,
                        reason);
    }
    if (refused > 0) {
      progress_.note(fmt::format("{}: {} of {} conversations left out: the model's chat template refuses: {}",
                                 file, refused, refused + out.documents.size(), reason));
    }
    return {};
  }

  Status chat(const Json& j, const std::string& where, TokenText& out, std::size_t& refused,
              std::string& reason) {
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
      ++refused;
      if (reason.empty()) reason = rendered.error().message;
      return {};
    }
    text::EncodeTextOptions encode;
    encode.add_special = false;  // the template writes its own
    NARROW_ASSIGN(auto ids, tokenizer_.encode(*rendered, encode));
    // Every window gets a BOS where the model wants one.
    if (spec.add_bos && spec.bos && !ids.empty() && ids[0] == *spec.bos) ids.erase(ids.begin());
    if (!ids.empty()) out.documents.push_back(std::move(ids));
    return {};
  }

  Status open_template() {
    if (template_) return {};
    const std::string& source = tokenizer_.spec().chat_template;
    if (source.empty()) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: the model has no chat template: calibrate it on plain text (.txt)",
                        source_.path().string());
    }
    NARROW_ASSIGN(template_, text::ChatTemplate::parse(source));
    return {};
  }

  const text::Tokenizer& tokenizer_;
  const model::ModelSource& source_;
  ProgressSink& progress_;
  std::optional<text::ChatTemplate> template_;
};

}  // namespace

Result<calib::CutTexts> calibration_text(const CalibrationOptions& options, const model::ModelSource& source,
                                         ProgressSink& progress) {
  const model::ModelConfig& config = source.config();
  NARROW_ASSIGN(const auto tokenizer, open_tokenizer(source.path(), config.n_vocab));
  calib::CutOptions cut;
  cut.n_ctx = options.n_ctx;
  cut.max_tokens = options.max_tokens;
  if (tokenizer->spec().add_bos) cut.bos = tokenizer->spec().bos;
  // Lengths that no model could have are cut_texts()'s to refuse.
  if (cut.n_ctx > config.n_ctx_train && cut.n_ctx <= calib::kMaxWindow) {
    cut.n_ctx = config.n_ctx_train;
    progress.note(
        fmt::format("windows of {} tokens instead of {}: the model's context", cut.n_ctx, options.n_ctx));
  }
  Reader reader(*tokenizer, source, progress);
  std::vector<TokenText> texts;
  for (const fs::path& file : options.texts) {
    NARROW_ASSIGN(TokenText text, reader.read(file));
    texts.push_back(std::move(text));
  }
  return calib::cut_texts(texts, cut);
}

Result<calib::TokenWindows> calibration_windows(const CalibrationOptions& options,
                                                const model::ModelSource& source, ProgressSink& progress) {
  NARROW_ASSIGN(calib::CutTexts cut, calibration_text(options, source, progress));
  progress.note(calib::describe(cut, options.max_tokens));
  return std::move(cut.windows);
}

}  // namespace narrow::pipeline

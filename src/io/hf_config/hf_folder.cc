#include "io/hf_config/hf_folder.h"

#include "base/atomic_file.h"
#include "io/caps.h"
#include "io/hf_config/json_text.h"

namespace narrow::io {
namespace {

Result<Json> read_object(const std::filesystem::path& path) {
  NARROW_ASSIGN(Json j, read_json(path));
  if (!j.is_object()) {
    return make_error(ErrorCode::kCorrupt, "{}: holds a JSON {}, not an object", path.string(),
                      j.type_name());
  }
  return j;
}

Result<std::optional<Json>> read_optional_object(const std::filesystem::path& path) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) return std::optional<Json>();
  NARROW_ASSIGN(Json j, read_object(path));
  return std::optional<Json>(std::move(j));
}

// "chat_template": a string, or a list of {"name", "template"} of which "default" is the one for chat.
Result<std::optional<std::string>> template_of(const Json& tokenizer_config,
                                               const std::filesystem::path& path) {
  const auto it = tokenizer_config.find("chat_template");
  if (it == tokenizer_config.end() || it->is_null()) return std::optional<std::string>();
  if (it->is_string()) return std::optional<std::string>(it->get_ref<const std::string&>());
  const auto bad = [&] {
    return make_error(ErrorCode::kCorrupt,
                      "{}: 'chat_template' is neither a string nor a list of {{\"name\", \"template\"}}",
                      path.string());
  };
  if (!it->is_array()) return bad();
  std::optional<std::string> found;
  for (const Json& item : *it) {
    if (!item.is_object()) return bad();
    const auto name = item.find("name");
    const auto text = item.find("template");
    if (name == item.end() || !name->is_string() || text == item.end() || !text->is_string()) return bad();
    if (name->get_ref<const std::string&>() == "default") found = text->get_ref<const std::string&>();
  }
  return found;
}

}  // namespace

Result<Json> read_json(const std::filesystem::path& path) {
  NARROW_ASSIGN(const std::string text, read_text_file(path, caps::kMaxJsonBytes));
  return parse_json(text, path.string());
}

Result<HfFolder> HfFolder::open(const std::filesystem::path& folder) {
  std::error_code ec;
  if (!std::filesystem::exists(folder, ec)) {
    return make_error(ErrorCode::kNotFound, "{}: no such folder", folder.string());
  }
  if (!std::filesystem::is_directory(folder, ec)) {
    return make_error(ErrorCode::kInvalidArgument, "{}: is not a folder", folder.string());
  }
  if (!std::filesystem::exists(folder / "config.json", ec)) {
    return make_error(ErrorCode::kNotFound, "{}: is not a Hugging Face model folder: config.json is missing",
                      folder.string());
  }
  HfFolder f;
  f.path = folder;
  NARROW_ASSIGN(f.config, read_object(folder / "config.json"));
  NARROW_ASSIGN(f.generation_config, read_optional_object(folder / "generation_config.json"));
  const auto tokenizer_config = folder / "tokenizer_config.json";
  NARROW_ASSIGN(f.tokenizer_config, read_optional_object(tokenizer_config));
  const auto jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja, ec)) {
    NARROW_ASSIGN(f.chat_template, read_text_file(jinja, caps::kMaxStringBytes));
  } else if (f.tokenizer_config) {
    NARROW_ASSIGN(f.chat_template, template_of(*f.tokenizer_config, tokenizer_config));
  }
  return f;
}

}  // namespace narrow::io

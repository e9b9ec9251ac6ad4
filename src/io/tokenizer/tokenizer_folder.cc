// Which files a tokenizer comes from, and what the config files beside them add.
#include <algorithm>
#include <set>

#include "base/atomic_file.h"
#include "io/caps.h"
#include "io/gguf/reader.h"
#include "io/hf_config/json_text.h"
#include "io/printable.h"
#include "io/tokenizer/hf_tokenizer_json.h"
#include "io/tokenizer/sentencepiece_model.h"
#include "io/tokenizer/special_tokens.h"
#include "io/tokenizer/tokenizer_files.h"
#include "text/pretokenizer_table.h"
#include "text/tokenizer_unicode.h"

namespace narrow::io {
namespace {

namespace fs = std::filesystem;
using text::AddedToken;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

bool is_file(const fs::path& p) {
  std::error_code ec;
  return fs::is_regular_file(p, ec);
}

// An absent file is an empty object.
Result<Json> optional_object(const fs::path& p) {
  if (!is_file(p)) return Json(Json::object());
  NARROW_ASSIGN(Json j, read_json(p));
  if (!j.is_object()) return make_error(ErrorCode::kCorrupt, "{}: is no JSON object", p.string());
  return j;
}

// A token given as text or as {"content": text}.
std::string token_text(const Json& j, const char* name) {
  const auto it = j.find(name);
  if (it == j.end()) return {};
  if (it->is_string()) return it->get_ref<const std::string&>();
  const auto content = it->is_object() ? it->find("content") : it->end();
  return it->is_object() && content != it->end() && content->is_string()
             ? content->get_ref<const std::string&>()
             : std::string();
}

std::optional<bool> flag(const Json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_boolean() ? std::optional<bool>(it->get<bool>()) : std::nullopt;
}

Status add_token(std::int64_t id, const std::string& content, const Json& flags, bool special,
                 TokenizerSpec& spec) {
  if (id < 0 || id >= kMaxId || content.empty()) {
    return make_error(ErrorCode::kCorrupt, "added token '{}' has the id {}", printable(content), id);
  }
  const auto i = static_cast<std::size_t>(id);
  if (i >= spec.tokens.size()) {
    spec.tokens.resize(i + 1);
    spec.types.resize(i + 1, TokenType::kUnused);
    if (!spec.scores.empty()) spec.scores.resize(i + 1, -1000.0f);
  }
  spec.tokens[i] = content;
  if (spec.types[i] != TokenType::kUnknown)
    spec.types[i] = special ? TokenType::kControl : TokenType::kUserDefined;
  AddedToken a;
  a.id = static_cast<std::int32_t>(id);
  a.special = special;
  a.lstrip = flag(flags, "lstrip").value_or(false);
  a.rstrip = flag(flags, "rstrip").value_or(false);
  a.single_word = flag(flags, "single_word").value_or(false);
  std::erase_if(spec.added, [&](const AddedToken& x) { return x.id == a.id; });
  spec.added.push_back(a);
  return {};
}

// Files from before tokenizer.json keep their added tokens elsewhere.
Status read_added_files(const fs::path& folder, const Json& config, TokenizerSpec& spec) {
  NARROW_ASSIGN(const Json added, optional_object(folder / "added_tokens.json"));
  for (const auto& [content, id] : added.items()) {
    if (!id.is_number_integer()) {
      return make_error(ErrorCode::kCorrupt, "{}: an id is no integer",
                        (folder / "added_tokens.json").string());
    }
    NARROW_TRY(add_token(id.get<std::int64_t>(), content, Json::object(), looks_special(content), spec));
  }
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || !decoder->is_object()) return {};
  for (const auto& [id_text, item] : decoder->items()) {
    const bool digits =
        !id_text.empty() && id_text.size() < 9 &&
        std::all_of(id_text.begin(), id_text.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits || !item.is_object()) {
      return make_error(ErrorCode::kCorrupt, "tokenizer_config.json: added_tokens_decoder holds '{}'",
                        printable(id_text));
    }
    NARROW_TRY(add_token(std::stoll(id_text), token_text(item, "content"), item,
                         flag(item, "special").value_or(false), spec));
  }
  return {};
}

std::string chat_template_of(const Json& config) {
  const auto it = config.find("chat_template");
  if (it == config.end()) return {};
  if (it->is_string()) return it->get_ref<const std::string&>();
  if (!it->is_array()) return {};
  for (const Json& item : *it) {
    if (item.is_object() && token_text(item, "name") == "default") return token_text(item, "template");
  }
  return {};
}

// eos_token_id: one id or several.
void read_ends(const Json& j, TokenizerSpec& spec) {
  const auto it = j.find("eos_token_id");
  if (it == j.end()) return;
  const auto add = [&](const Json& id) {
    if (!id.is_number_unsigned()) return;
    const auto x = id.get<std::uint64_t>();
    if (x < spec.tokens.size()) spec.end_tokens.push_back(static_cast<std::int32_t>(x));
  };
  if (it->is_array()) {
    for (const Json& id : *it) add(id);
  } else {
    add(*it);
  }
  if (!spec.eos && !spec.end_tokens.empty()) spec.eos = spec.end_tokens.front();
}

Status read_config_files(const fs::path& folder, bool from_json, TokenizerSpec& spec) {
  NARROW_ASSIGN(const Json config, optional_object(folder / "tokenizer_config.json"));
  NARROW_ASSIGN(const Json map, optional_object(folder / "special_tokens_map.json"));
  NARROW_ASSIGN(const Json generation, optional_object(folder / "generation_config.json"));
  NARROW_ASSIGN(const Json model, optional_object(folder / "config.json"));
  if (!from_json) NARROW_TRY(read_added_files(folder, config, spec));
  const std::pair<const char*, std::optional<std::int32_t>*> named[] = {
      {"bos_token", &spec.bos}, {"eos_token", &spec.eos}, {"unk_token", &spec.unk},
      {"pad_token", &spec.pad}, {"sep_token", &spec.sep}, {"mask_token", &spec.mask}};
  for (const auto& [name, id] : named) {
    // The tokens that the template puts around the text are the ones that count.
    if ((id == &spec.bos && spec.add_bos && from_json) || (id == &spec.eos && spec.add_eos && from_json))
      continue;
    for (const Json* j : {&config, &map}) {
      if (const auto found = find_token(spec, token_text(*j, name))) {
        *id = found;
        break;
      }
    }
  }
  if (!from_json) {
    spec.add_bos = flag(config, "add_bos_token").value_or(spec.add_bos) && spec.bos;
    spec.add_eos = flag(config, "add_eos_token").value_or(spec.add_eos) && spec.eos;
  }
  spec.clean_up_spaces = flag(config, "clean_up_tokenization_spaces").value_or(false);
  read_ends(generation, spec);
  read_ends(model, spec);

  spec.chat_template = chat_template_of(config);
  if (is_file(folder / "chat_template.jinja")) {
    NARROW_ASSIGN(spec.chat_template, read_text_file(folder / "chat_template.jinja", caps::kMaxStringBytes));
  }
  return {};
}

Result<TokenizerSpec> from_json_file(const fs::path& file, bool& has_template) {
  NARROW_ASSIGN(const Json json, read_json(file));
  auto spec = parse_tokenizer_json(json);
  if (!spec.ok()) return with_context(spec.error(), file.parent_path().string());
  const auto post = json.find("post_processor");
  has_template = post != json.end() && !post->is_null();
  return spec;
}

Result<TokenizerSpec> from_sentencepiece_file(const fs::path& file) {
  NARROW_ASSIGN(const std::string bytes, read_text_file(file, caps::kMaxJsonBytes));
  auto spec = parse_sentencepiece(bytes);
  if (!spec.ok()) return with_context(spec.error(), file.string());
  return spec;
}

// GPT-2's first format: ids as JSON, merges a line each.
Result<TokenizerSpec> from_vocab_and_merges(const fs::path& vocab_file, const fs::path& merges_file,
                                            const std::string& tokenizer_class) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kByteBpe;
  NARROW_ASSIGN(const Json vocab, optional_object(vocab_file));
  for (const auto& [token, id] : vocab.items()) {
    const std::int64_t x = id.is_number_integer() ? id.get<std::int64_t>() : -1;
    if (x < 0 || x >= kMaxId) {
      return make_error(ErrorCode::kCorrupt, "{}: token '{}' has no usable id", vocab_file.string(),
                        printable(token));
    }
    if (static_cast<std::size_t>(x) >= spec.tokens.size()) {
      spec.tokens.resize(static_cast<std::size_t>(x) + 1);
      spec.types.resize(spec.tokens.size(), TokenType::kUnused);
    }
    spec.tokens[static_cast<std::size_t>(x)] = token;
    spec.types[static_cast<std::size_t>(x)] = TokenType::kNormal;
  }
  NARROW_ASSIGN(const std::string merges, read_text_file(merges_file, caps::kMaxJsonBytes));
  for (std::size_t at = 0, line = 1; at < merges.size(); ++line) {
    const std::size_t end = std::min(merges.find('\n', at), merges.size());
    std::string_view text = std::string_view(merges).substr(at, end - at);
    at = end + 1;
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty() || (line == 1 && text.starts_with("#version"))) continue;
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return make_error(ErrorCode::kCorrupt, "{}: line {} is not two tokens", merges_file.string(), line);
    }
    spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  const bool qwen = tokenizer_class == "Qwen2Tokenizer";
  if (!qwen && !tokenizer_class.empty() && !tokenizer_class.starts_with("GPT2Tokenizer") &&
      !tokenizer_class.starts_with("CodeGenTokenizer")) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: how {} splits words is not in these files; a tokenizer.json would say it",
                      vocab_file.string(), printable(tokenizer_class));
  }
  spec.ggml_pre = qwen ? "qwen2" : "gpt-2";
  spec.pre_tokenizer = text::pre_steps(*text::find_pre_rule(spec.ggml_pre));
  spec.decoder.push_back({});
  if (const auto end = find_token(spec, "<|endoftext|>")) {
    NARROW_TRY(add_token(*end, "<|endoftext|>", Json::object(), true, spec));
    spec.eos = end;
    if (!qwen) spec.bos = end;
  }
  return spec;
}

void finish(TokenizerSpec& spec) {
  if (spec.kind == TokenizerKind::kByteBpe && spec.ggml_pre.empty())
    spec.ggml_pre = text::find_pre_name(spec);
  if (spec.kind != TokenizerKind::kByteBpe) spec.ggml_pre = "default";
  complete_special_tokens(spec, false);
}

// SentencePiece files are often named tokenizer.model.v3 or *.model.
fs::path sentencepiece_file(const fs::path& folder) {
  if (is_file(folder / "tokenizer.model")) return folder / "tokenizer.model";
  if (is_file(folder / "spiece.model")) return folder / "spiece.model";
  std::set<fs::path> found;  // sorted, so that the choice does not depend on the file system
  std::error_code ec;
  for (const fs::directory_entry& e : fs::directory_iterator(folder, ec)) {
    const std::string name = e.path().filename().string();
    const bool named =
        name.find("tokenizer") != std::string::npos || name.find("sentencepiece") != std::string::npos;
    if (named && name.find(".model") != std::string::npos && is_file(e.path())) found.insert(e.path());
  }
  return found.empty() ? fs::path() : *found.begin();
}

}  // namespace

Result<TokenizerSpec> tokenizer_spec_from_folder(const fs::path& folder) {
  bool has_template = false;
  TokenizerSpec spec;
  if (is_file(folder / "tokenizer.json")) {
    NARROW_ASSIGN(spec, from_json_file(folder / "tokenizer.json", has_template));
    NARROW_TRY(read_config_files(folder, true, spec));
    if (!has_template) {
      // No post-processor: the config's word is all there is.
      NARROW_ASSIGN(const Json config, optional_object(folder / "tokenizer_config.json"));
      spec.add_bos = flag(config, "add_bos_token").value_or(false) && spec.bos;
      spec.add_eos = flag(config, "add_eos_token").value_or(false) && spec.eos;
    }
    finish(spec);
    return spec;
  }
  const fs::path model = sentencepiece_file(folder);
  if (!model.empty()) {
    NARROW_ASSIGN(spec, from_sentencepiece_file(model));
    NARROW_TRY(read_config_files(folder, false, spec));
    finish(spec);
    return spec;
  }
  for (const auto& [vocab, merges] :
       {std::pair{"vocab.json", "merges.txt"}, std::pair{"encoder.json", "vocab.bpe"}}) {
    if (!is_file(folder / vocab) || !is_file(folder / merges)) continue;
    NARROW_ASSIGN(const Json config, optional_object(folder / "tokenizer_config.json"));
    NARROW_ASSIGN(
        spec, from_vocab_and_merges(folder / vocab, folder / merges, token_text(config, "tokenizer_class")));
    NARROW_TRY(read_config_files(folder, false, spec));
    finish(spec);
    return spec;
  }
  return make_error(
      ErrorCode::kNotFound,
      "{}: no tokenizer (looked for tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
      "encoder.json with vocab.bpe)",
      folder.string());
}

Result<TokenizerSpec> tokenizer_spec_from_file(const fs::path& file) {
  if (!is_file(file)) return make_error(ErrorCode::kNotFound, "{}: no such file", file.string());
  if (gguf::Reader::is_gguf(file)) return tokenizer_spec_from_model(file);
  NARROW_ASSIGN(const std::string bytes, read_text_file(file, caps::kMaxJsonBytes));
  const std::size_t first = bytes.find_first_not_of(" \t\r\n");
  TokenizerSpec spec;
  // A SentencePiece model starts with the tag 0x0a and the length of the first piece, which is no '{'.
  if (first != std::string::npos && bytes[first] == '{') {
    bool has_template = false;
    NARROW_ASSIGN(spec, from_json_file(file, has_template));
  } else {
    NARROW_ASSIGN(spec, from_sentencepiece_file(file));
  }
  finish(spec);
  return spec;
}

Result<TokenizerSpec> tokenizer_spec_from_model(const fs::path& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return tokenizer_spec_from_folder(path);
  if (!fs::exists(path, ec))
    return make_error(ErrorCode::kNotFound, "{}: no such file or folder", path.string());
  if (!gguf::Reader::is_gguf(path)) {
    return make_error(ErrorCode::kUnsupported, "{}: neither a GGUF file nor a model folder", path.string());
  }
  NARROW_ASSIGN(const gguf::Reader reader, gguf::Reader::open(path));
  auto spec = tokenizer_spec_from_gguf(reader.metadata());
  if (!spec.ok()) return with_context(spec.error(), path.string());
  return spec;
}

}  // namespace narrow::io

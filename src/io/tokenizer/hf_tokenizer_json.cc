#include "io/tokenizer/hf_tokenizer_json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "io/printable.h"
#include "io/tokenizer/base64.h"
#include "io/tokenizer/hf_steps.h"
#include "text/tokenizer_unicode.h"

namespace narrow::io {
namespace {

using text::AddedToken;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

Error bad(const char* what) { return make_error(ErrorCode::kCorrupt, "tokenizer.json: {}", what); }

Status put_token(std::int64_t id, const std::string& token, TokenizerSpec& spec) {
  if (id < 0 || id >= kMaxId)
    return make_error(ErrorCode::kCorrupt, "tokenizer.json: token id {} is out of range", id);
  const auto i = static_cast<std::size_t>(id);
  if (i >= spec.tokens.size()) {
    spec.tokens.resize(i + 1);
    spec.types.resize(i + 1, TokenType::kUnused);
  }
  spec.tokens[i] = token;
  spec.types[i] = TokenType::kNormal;
  return {};
}

Status read_bpe(const Json& model, TokenizerSpec& spec) {
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_of(model, affix).empty()) {
      return make_error(ErrorCode::kUnsupported, "tokenizer.json: BPE with {} '{}'", affix,
                        text_of(model, affix));
    }
  }
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_object()) return bad("model.vocab is not an object");
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_integer()) return bad("model.vocab holds an id that is no integer");
    NARROW_TRY(put_token(id.get<std::int64_t>(), token, spec));
  }
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) return bad("model.merges is not a list");
  spec.merges.reserve(merges->size());
  for (const Json& m : *merges) {
    if (m.is_string()) {
      const auto& s = m.get_ref<const std::string&>();
      const std::size_t space = s.find(' ');
      if (space == std::string::npos || s.find(' ', space + 1) != std::string::npos) {
        return make_error(ErrorCode::kCorrupt, "tokenizer.json: the merge '{}' is not two tokens",
                          printable(s));
      }
      spec.merges.emplace_back(s.substr(0, space), s.substr(space + 1));
    } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      spec.merges.emplace_back(m[0].get_ref<const std::string&>(), m[1].get_ref<const std::string&>());
    } else {
      return bad("model.merges holds an item that is not two tokens");
    }
  }
  spec.byte_fallback = flag(model, "byte_fallback");
  spec.fuse_unknown = flag(model, "fuse_unk");
  spec.ignore_merges = flag(model, "ignore_merges");
  return {};
}

Status read_unigram(const Json& model, TokenizerSpec& spec) {
  spec.kind = TokenizerKind::kUnigram;
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_array()) return bad("model.vocab of a unigram model is not a list");
  std::int64_t id = 0;
  for (const Json& item : *vocab) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
      return bad("model.vocab holds an item that is not a piece and a score");
    }
    NARROW_TRY(put_token(id++, item[0].get_ref<const std::string&>(), spec));
    spec.scores.push_back(static_cast<float>(item[1].get<double>()));
  }
  const auto unk = model.find("unk_id");
  if (unk != model.end() && unk->is_number_integer()) {
    const auto x = unk->get<std::int64_t>();
    if (x < 0 || x >= id) return bad("model.unk_id is outside the vocabulary");
    spec.unk = static_cast<std::int32_t>(x);
  }
  spec.byte_fallback = flag(model, "byte_fallback");
  spec.fuse_unknown = true;
  return {};
}

Status read_added(const Json& json, TokenizerSpec& spec) {
  const auto list = json.find("added_tokens");
  if (list == json.end() || list->is_null()) return {};
  if (!list->is_array()) return bad("added_tokens is not a list");
  std::unordered_map<std::string, std::int32_t> ids;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (!spec.tokens[i].empty()) ids.try_emplace(spec.tokens[i], static_cast<std::int32_t>(i));
  }
  for (const Json& item : *list) {
    if (!item.is_object()) return bad("added_tokens holds an item that is no object");
    const std::string content = text_of(item, "content");
    const auto id = item.find("id");
    if (content.empty() || id == item.end() || !id->is_number_integer()) {
      return bad("added_tokens holds an item without content or id");
    }
    AddedToken a;
    a.special = flag(item, "special");
    a.lstrip = flag(item, "lstrip");
    a.rstrip = flag(item, "rstrip");
    a.single_word = flag(item, "single_word");
    a.normalized = flag(item, "normalized", !a.special);
    // The vocabulary's own id wins over the stated one, as in the tokenizers library.
    if (const auto known = ids.find(content); known != ids.end()) {
      a.id = known->second;
    } else {
      NARROW_TRY(put_token(id->get<std::int64_t>(), content, spec));
      a.id = static_cast<std::int32_t>(id->get<std::int64_t>());
      ids.emplace(content, a.id);
    }
    spec.types[static_cast<std::size_t>(a.id)] = a.special ? TokenType::kControl : TokenType::kUserDefined;
    spec.added.push_back(a);
  }
  if (!spec.scores.empty()) spec.scores.resize(spec.tokens.size(), 0.0f);
  return {};
}

// Which special tokens stand before and after the text. `single`: what a TemplateProcessing lists.
Status read_template(const Json& single, TokenizerSpec& spec) {
  bool after_text = false;
  std::vector<std::string> before, after;
  for (const Json& item : single) {
    if (item.is_object() && item.contains("Sequence")) {
      if (after_text)
        return make_error(ErrorCode::kUnsupported, "tokenizer.json: a template with the text twice");
      after_text = true;
      continue;
    }
    const auto special = item.is_object() ? item.find("SpecialToken") : item.end();
    if (special == item.end() || !special->is_object())
      return bad("post_processor.single holds an unknown item");
    (after_text ? after : before).push_back(text_of(*special, "id"));
  }
  if (before.size() > 1 || after.size() > 1) {
    return make_error(
        ErrorCode::kUnsupported,
        "tokenizer.json: the template puts {} tokens before and {} after the text (one each is possible)",
        before.size(), after.size());
  }
  if (!before.empty()) {
    spec.bos = find_token(spec, before[0]);
    spec.add_bos = true;
    if (!spec.bos) return bad("post_processor names a token that is not there");
  }
  if (!after.empty()) {
    spec.eos = find_token(spec, after[0]);
    spec.add_eos = true;
    if (!spec.eos) return bad("post_processor names a token that is not there");
  }
  return {};
}

Status read_post_processor(const Json& j, TokenizerSpec& spec) {
  if (j.is_null()) return {};
  if (!j.is_object()) return bad("post_processor is no object");
  const std::string type = text_of(j, "type");
  if (type == "ByteLevel") return {};
  if (type == "Sequence") {
    const auto list = j.find("processors");
    if (list == j.end() || !list->is_array()) return bad("post_processor.processors is not a list");
    for (const Json& p : *list) {
      if (text_of(p, "type") == "Sequence") return bad("a post_processor Sequence inside another");
      NARROW_TRY(read_post_processor(p, spec));
    }
    return {};
  }
  if (type == "TemplateProcessing") {
    const auto single = j.find("single");
    if (single == j.end() || !single->is_array()) return bad("post_processor.single is not a list");
    return read_template(*single, spec);
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    for (const char* end : {"cls", "sep"}) {
      const auto pair = j.find(end);
      if (pair == j.end() || !pair->is_array() || pair->empty() || !(*pair)[0].is_string()) {
        return bad("post_processor without its cls and sep tokens");
      }
      const auto id = find_token(spec, (*pair)[0].get_ref<const std::string&>());
      if (!id) return bad("post_processor names a token that is not there");
      (end[0] == 'c' ? spec.bos : spec.eos) = id;
    }
    spec.add_bos = spec.add_eos = true;
    return {};
  }
  return make_error(ErrorCode::kUnsupported, "tokenizer.json: post_processor '{}'", printable(type));
}

}  // namespace

std::optional<std::int32_t> find_token(const TokenizerSpec& spec, std::string_view content) {
  const auto it =
      content.empty() ? spec.tokens.end() : std::find(spec.tokens.begin(), spec.tokens.end(), content);
  if (it == spec.tokens.end()) return std::nullopt;
  return static_cast<std::int32_t>(it - spec.tokens.begin());
}

Result<TokenizerSpec> parse_tokenizer_json(const Json& json) {
  TokenizerSpec spec;
  const auto model = json.is_object() ? json.find("model") : json.end();
  if (model == json.end() || !model->is_object()) return bad("no model");
  const auto part = [&](const char* name) {
    const auto it = json.find(name);
    return it == json.end() ? Json() : *it;
  };
  NARROW_TRY(read_normalizers(part("normalizer"), spec.normalizer));
  NARROW_TRY(read_pre_tokenizers(part("pre_tokenizer"), spec.pre_tokenizer));
  NARROW_TRY(read_decoders(part("decoder"), spec.decoder));

  std::string type = text_of(*model, "type");
  if (type.empty()) type = model->contains("merges") ? "BPE" : "Unigram";
  if (type == "BPE") {
    const bool bytes =
        std::any_of(spec.pre_tokenizer.begin(), spec.pre_tokenizer.end(),
                    [](const text::PreStep& s) { return s.kind == text::PreStep::Kind::kByteLevel; });
    spec.kind = bytes ? TokenizerKind::kByteBpe : TokenizerKind::kSpmBpe;
    NARROW_TRY(read_bpe(*model, spec));
    spec.unk = find_token(spec, text_of(*model, "unk_token"));
    spec.unk_for_bytes = bytes && spec.unk;
  } else if (type == "Unigram") {
    NARROW_TRY(read_unigram(*model, spec));
  } else {
    return make_error(ErrorCode::kUnsupported,
                      "tokenizer.json: model type '{}' (BPE and Unigram are supported)", printable(type));
  }
  if (spec.byte_fallback) {
    for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
      if (text::parse_byte_token(spec.tokens[i]) >= 0) spec.types[i] = TokenType::kByte;
    }
  }
  NARROW_TRY(read_added(json, spec));
  if (spec.unk) spec.types[static_cast<std::size_t>(*spec.unk)] = TokenType::kUnknown;
  NARROW_TRY(read_post_processor(part("post_processor"), spec));

  for (const text::NormStep& s : spec.normalizer) {
    if (s.kind == text::NormStep::Kind::kPrepend && s.content == text::kMetaChar)
      spec.add_space_prefix = true;
    if (s.kind == text::NormStep::Kind::kReplace && s.is_regex && s.pattern == " {2,}") {
      spec.remove_extra_whitespaces = true;
    }
  }
  for (const text::PreStep& s : spec.pre_tokenizer) {
    if (s.kind == text::PreStep::Kind::kMetaspace && s.prepend_scheme != "never")
      spec.add_space_prefix = true;
  }
  for (const text::DecodeStep& s : spec.decoder) {
    const bool strips = s.kind == text::DecodeStep::Kind::kStrip && s.content == " " && s.start > 0;
    if (strips || (s.kind == text::DecodeStep::Kind::kMetaspace && s.drop_first))
      spec.decode_strips_space = true;
  }
  return spec;
}

}  // namespace narrow::io

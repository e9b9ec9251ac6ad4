// tokenizer.json and tokenizer_config.json from a spec.
#include <algorithm>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include "io/tokenizer/hf_steps.h"
#include "io/tokenizer/tokenizer_files.h"
#include "text/tokenizer_unicode.h"

namespace narrow::io {
namespace {

using text::AddedToken;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

using Merges = std::vector<std::pair<std::string, std::string>>;

// ordered_json looks a key up before it inserts; a vocabulary needs the list underneath.
void append(Json& object, std::string key, Json value) {
  object.get_ref<Json::object_t&>().emplace_back(std::move(key), std::move(value));
}

// Every way to make a piece of two pieces, the best piece first: what merging by score does, as ranks.
Merges merges_from_scores(const TokenizerSpec& spec) {
  const auto usable = [&](std::size_t i) {
    return spec.types[i] == TokenType::kNormal || spec.types[i] == TokenType::kUserDefined;
  };
  std::unordered_map<std::string_view, std::size_t> ids;
  ids.reserve(spec.tokens.size());
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (usable(i)) ids.try_emplace(spec.tokens[i], i);
  }
  struct Merge {
    std::size_t piece, left, right;
  };
  std::vector<Merge> found;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (!usable(i)) continue;
    const std::string_view piece = spec.tokens[i];
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xc0) == 0x80) continue;
      const auto left = ids.find(piece.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(piece.substr(cut));
      if (right != ids.end()) found.push_back({i, left->second, right->second});
    }
  }
  const auto size = [&](std::size_t i) { return spec.tokens[i].size(); };
  std::sort(found.begin(), found.end(), [&](const Merge& a, const Merge& b) {
    const float sa = spec.scores[a.piece], sb = spec.scores[b.piece];
    if (sa != sb) return sa > sb;
    // Among equals the order of transformers' converter: longer left parts, then lower ids.
    return std::make_tuple(size(b.left), size(b.right), a.left, a.right, a.piece) <
           std::make_tuple(size(a.left), size(a.right), b.left, b.right, b.piece);
  });
  Merges merges;
  merges.reserve(found.size());
  for (const Merge& m : found) merges.emplace_back(spec.tokens[m.left], spec.tokens[m.right]);
  return merges;
}

Json added_json(const TokenizerSpec& spec) {
  std::vector<AddedToken> added = spec.added;
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  Json list = Json::array();
  for (const AddedToken& a : added) {
    list.push_back({{"id", a.id},
                    {"content", spec.tokens[static_cast<std::size_t>(a.id)]},
                    {"single_word", a.single_word},
                    {"lstrip", a.lstrip},
                    {"rstrip", a.rstrip},
                    {"normalized", a.normalized},
                    {"special", a.special}});
  }
  return list;
}

Json post_processor_json(const TokenizerSpec& spec) {
  const bool bos = spec.add_bos && spec.bos, eos = spec.add_eos && spec.eos;
  if (!bos && !eos) {
    if (spec.kind != TokenizerKind::kByteBpe) return Json();
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  }
  const auto special = [&](std::int32_t id, int type) {
    return Json{{"SpecialToken", {{"id", spec.tokens[static_cast<std::size_t>(id)]}, {"type_id", type}}}};
  };
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto sequence = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const auto name_token = [&](std::int32_t id) {
    const std::string& t = spec.tokens[static_cast<std::size_t>(id)];
    tokens[t] = {{"id", t}, {"ids", Json::array({id})}, {"tokens", Json::array({t})}};
  };
  for (int i = 0; i < 2; ++i) {
    for (Json* list : {&single, &pair}) {
      if (i == 1 && list == &single) continue;
      if (bos) list->push_back(special(*spec.bos, i));
      list->push_back(sequence(i == 0 ? "A" : "B", i));
      if (eos) list->push_back(special(*spec.eos, i));
    }
  }
  if (bos) name_token(*spec.bos);
  if (eos) name_token(*spec.eos);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Json optional_token(const TokenizerSpec& spec, const std::optional<std::int32_t>& id) {
  return id ? Json(spec.tokens[static_cast<std::size_t>(*id)]) : Json();
}

Json bpe_json(const TokenizerSpec& spec) {
  Json vocab = Json::object();
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (!spec.tokens[i].empty()) append(vocab, spec.tokens[i], i);
  }
  const Merges from_scores =
      spec.merges.empty() && !spec.scores.empty() ? merges_from_scores(spec) : Merges();
  Json merges = Json::array();
  for (const auto& [left, right] : spec.merges.empty() ? from_scores : spec.merges) {
    merges.push_back(Json::array({left, right}));
  }
  const bool bytes = spec.kind == TokenizerKind::kByteBpe;
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", bytes && !spec.unk_for_bytes ? Json() : optional_token(spec, spec.unk)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", spec.fuse_unknown},
          {"byte_fallback", spec.byte_fallback},
          {"ignore_merges", spec.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

Json unigram_json(const TokenizerSpec& spec) {
  Json vocab = Json::array();
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    vocab.push_back(Json::array({spec.tokens[i], static_cast<double>(spec.scores[i])}));
  }
  return {{"type", "Unigram"},
          {"unk_id", spec.unk ? Json(*spec.unk) : Json()},
          {"vocab", std::move(vocab)},
          {"byte_fallback", spec.byte_fallback}};
}

}  // namespace

Result<Json> tokenizer_spec_to_json(const TokenizerSpec& spec) {
  if (spec.kind != TokenizerKind::kByteBpe && spec.merges.empty() &&
      spec.scores.size() != spec.tokens.size()) {
    return make_error(ErrorCode::kInvalidArgument, "a tokenizer of {} tokens has {} scores and no merges",
                      spec.tokens.size(), spec.scores.size());
  }
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (!text::is_valid_utf8(spec.tokens[i])) {
      return make_error(ErrorCode::kUnsupported, "token {} is not UTF-8: tokenizer.json cannot hold it", i);
    }
  }
  return Json{{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", added_json(spec)},
              {"normalizer", normalizers_json(spec.normalizer)},
              {"pre_tokenizer", pre_tokenizers_json(spec.pre_tokenizer)},
              {"post_processor", post_processor_json(spec)},
              {"decoder", decoders_json(spec.decoder)},
              {"model", spec.kind == TokenizerKind::kUnigram ? unigram_json(spec) : bpe_json(spec)}};
}

Json tokenizer_spec_to_config_json(const TokenizerSpec& spec) {
  Json added = Json::object();
  for (Json& item : added_json(spec)) {
    const std::string id = std::to_string(item["id"].get<std::int32_t>());
    item.erase("id");
    append(added, id, item);
  }
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_bos_token", spec.add_bos},
                 {"add_eos_token", spec.add_eos},
                 {"clean_up_tokenization_spaces", spec.clean_up_spaces},
                 {"added_tokens_decoder", std::move(added)}};
  const std::pair<const char*, std::optional<std::int32_t>> named[] = {
      {"bos_token", spec.bos}, {"eos_token", spec.eos}, {"unk_token", spec.unk},
      {"pad_token", spec.pad}, {"sep_token", spec.sep}, {"mask_token", spec.mask}};
  for (const auto& [name, id] : named) {
    if (id) config[name] = spec.tokens[static_cast<std::size_t>(*id)];
  }
  if (!spec.chat_template.empty()) config["chat_template"] = spec.chat_template;
  return config;
}

}  // namespace narrow::io

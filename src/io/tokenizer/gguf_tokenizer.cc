// GGUF's tokenizer.* keys. Meanings and defaults are those of llama.cpp.
#include <algorithm>
#include <cctype>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "io/tokenizer/special_tokens.h"
#include "io/tokenizer/spm_steps.h"
#include "io/tokenizer/tokenizer_files.h"
#include "text/pretokenizer_table.h"
#include "text/tokenizer_unicode.h"

namespace narrow::io {
namespace {

using text::AddedToken;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

const std::string kPrefix = "tokenizer.ggml.";
constexpr float kUnusedScore = -10000.0f;

std::string key(std::string_view name) { return kPrefix + std::string(name); }

Result<TokenizerKind> kind_of(const gguf::Metadata& m) {
  const auto model = m.get_string(key("model"));
  if (!model)
    return make_error(ErrorCode::kNotFound, "the GGUF file has no tokenizer (no key tokenizer.ggml.model)");
  if (*model == "gpt2") return TokenizerKind::kByteBpe;
  if (*model == "llama") return TokenizerKind::kSpmBpe;
  if (*model == "t5") return TokenizerKind::kUnigram;
  return make_error(ErrorCode::kUnsupported,
                    "tokenizer.ggml.model '{}' is not supported (gpt2, llama, t5 are)", *model);
}

Status read_tokens(const gguf::Metadata& m, TokenizerSpec& spec) {
  const auto* tokens = m.get_strings(key("tokens"));
  if (!tokens || tokens->empty()) {
    return make_error(ErrorCode::kCorrupt, "the GGUF file has no tokenizer.ggml.tokens");
  }
  if (tokens->size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    return make_error(ErrorCode::kCorrupt, "tokenizer.ggml.tokens has {} items", tokens->size());
  }
  spec.tokens = *tokens;
  const std::size_t n = spec.tokens.size();
  for (std::size_t i = 0; i < n; ++i) {
    if (spec.tokens[i].empty()) spec.tokens[i] = fmt::format("[EMPTY_{}]", i);
  }
  spec.types.assign(n, TokenType::kNormal);
  if (m.has(key("token_type"))) {
    const auto types = m.get_ints(key("token_type"));
    if (!types || types->size() < n) {
      return make_error(ErrorCode::kCorrupt,
                        "tokenizer.ggml.token_type must hold an integer for each of {} tokens", n);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const std::int64_t t = (*types)[i];
      if (t >= 1 && t <= 6) spec.types[i] = static_cast<TokenType>(t);
    }
  }
  if (m.has(key("scores")) && spec.kind != TokenizerKind::kByteBpe) {
    auto scores = m.get_floats(key("scores"));
    if (!scores) {
      if (const auto ints = m.get_ints(key("scores"))) scores.emplace(ints->begin(), ints->end());
    }
    if (!scores || scores->size() < n) {
      return make_error(ErrorCode::kCorrupt, "tokenizer.ggml.scores must hold a number for each of {} tokens",
                        n);
    }
    scores->resize(n);
    spec.scores = std::move(*scores);
  } else if (spec.kind != TokenizerKind::kByteBpe) {
    spec.scores.assign(n, 0.0f);
  }
  return {};
}

Status read_merges(const gguf::Metadata& m, TokenizerSpec& spec) {
  const auto* merges = m.get_strings(key("merges"));
  if (!merges) return make_error(ErrorCode::kCorrupt, "the GGUF file has no tokenizer.ggml.merges");
  spec.merges.reserve(merges->size());
  for (const std::string& merge : *merges) {
    const std::size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      return make_error(ErrorCode::kCorrupt, "tokenizer.ggml.merges: '{}' is not two tokens", merge);
    }
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return {};
}

// An id outside the vocabulary counts as absent, as llama.cpp has it.
void read_id(const gguf::Metadata& m, std::string_view name, const TokenizerSpec& spec,
             std::optional<std::int32_t>& id) {
  const auto in_range = [&](std::int64_t x) {
    return x >= 0 && static_cast<std::uint64_t>(x) < spec.tokens.size();
  };
  if (const auto x = m.get_int(key(name)); x && in_range(*x)) id = static_cast<std::int32_t>(*x);
  if (id && !in_range(*id)) id.reset();
}

void read_ids(const gguf::Metadata& m, TokenizerSpec& spec) {
  if (spec.kind == TokenizerKind::kSpmBpe) {
    spec.bos = 1;
    spec.eos = 2;
    spec.unk = 0;
  } else if (spec.kind == TokenizerKind::kUnigram) {
    spec.eos = 1;
    spec.unk = 2;
    spec.pad = 0;
  }
  read_id(m, "bos_token_id", spec, spec.bos);
  read_id(m, "eos_token_id", spec, spec.eos);
  read_id(m, "unknown_token_id", spec, spec.unk);
  read_id(m, "padding_token_id", spec, spec.pad);
  read_id(m, "seperator_token_id", spec, spec.sep);  // spelled so in the format
  read_id(m, "mask_token_id", spec, spec.mask);
  read_id(m, "eot_token_id", spec, spec.eot);
  for (const char* name : {"eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"}) {
    std::optional<std::int32_t> id;
    read_id(m, name, spec, id);
    if (id) spec.end_tokens.push_back(*id);
  }
}

void read_added(const gguf::Metadata& m, TokenizerSpec& spec) {
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType t = spec.types[i];
    if (t != TokenType::kControl && t != TokenType::kUnknown && t != TokenType::kUserDefined) continue;
    AddedToken a;
    a.id = static_cast<std::int32_t>(i);
    a.special = t != TokenType::kUserDefined;
    spec.added.push_back(a);
  }
  // GGUF has no place for rstrip; Phi-3 is known by name.
  std::string name = m.get_string("general.name").value_or("");
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return;
  for (AddedToken& a : spec.added) {
    const std::string& t = spec.tokens[static_cast<std::size_t>(a.id)];
    a.rstrip = t != "<unk>" && t != "<s>" && t != "<|endoftext|>";
  }
}

// Scores whose order repeats the merges': a piece is worth the earliest merge that makes it.
std::vector<float> scores_from_merges(const TokenizerSpec& spec) {
  std::unordered_map<std::string, std::size_t> rank;
  rank.reserve(spec.merges.size());
  for (std::size_t i = 0; i < spec.merges.size(); ++i)
    rank.try_emplace(spec.merges[i].first + spec.merges[i].second, i);
  // Floats are exact for integers up to 2^24, so number the distinct pieces instead of the merges.
  std::vector<std::size_t> order;
  for (const auto& [piece, r] : rank) order.push_back(r);
  std::sort(order.begin(), order.end());
  std::vector<float> scores(spec.tokens.size(), kUnusedScore);
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const auto it = rank.find(spec.tokens[i]);
    if (it != rank.end()) {
      scores[i] =
          -static_cast<float>(std::lower_bound(order.begin(), order.end(), it->second) - order.begin());
    } else if (spec.types[i] == TokenType::kNormal) {
      scores[i] = -static_cast<float>(order.size());  // single characters: never the result of a merge
    } else {
      scores[i] = 0.0f;
    }
  }
  return scores;
}

Status check_expressible(const TokenizerSpec& spec, std::string& pre) {
  using Norm = text::NormStep::Kind;
  if (spec.kind == TokenizerKind::kByteBpe) {
    for (const text::NormStep& s : spec.normalizer) {
      // Text in the wild is in NFC already; llama.cpp has no step for it.
      if (s.kind == Norm::kNfc) continue;
      return make_error(ErrorCode::kUnsupported,
                        "GGUF has no place for this tokenizer's normalizer (only NFC may be left out)");
    }
    pre = spec.ggml_pre.empty() ? text::find_pre_name(spec) : spec.ggml_pre;
    if (pre.empty()) {
      return make_error(ErrorCode::kUnsupported,
                        "no tokenizer.ggml.pre of llama.cpp splits text as this tokenizer.json does");
    }
    return {};
  }
  pre = "default";
  if (!uses_meta_space(spec)) {
    return make_error(ErrorCode::kUnsupported,
                      "GGUF has no place for a character BPE that does not write spaces as U+2581");
  }
  return {};
}

}  // namespace

Result<TokenizerSpec> tokenizer_spec_from_gguf(const gguf::Metadata& m) {
  TokenizerSpec spec;
  NARROW_ASSIGN(spec.kind, kind_of(m));
  NARROW_TRY(read_tokens(m, spec));
  read_ids(m, spec);
  spec.chat_template = m.get_string("tokenizer.chat_template").value_or("");
  if (spec.kind == TokenizerKind::kByteBpe) {
    NARROW_TRY(read_merges(m, spec));
    spec.ggml_pre = m.get_string(key("pre")).value_or("default");
    const text::PreRule* rule = text::find_pre_rule(spec.ggml_pre);
    if (!rule) {
      return make_error(ErrorCode::kUnsupported, "tokenizer.ggml.pre '{}' is not known to narrow",
                        spec.ggml_pre);
    }
    spec.pre_tokenizer = text::pre_steps(*rule);
    spec.ignore_merges = rule->ignore_merges;
    spec.add_bos = rule->add_bos;
    spec.clean_up_spaces = rule->clean_spaces;
    spec.decoder.push_back({});
  } else {
    const bool spm = spec.kind == TokenizerKind::kSpmBpe;
    spec.ggml_pre = m.get_string(key("pre")).value_or("default");
    spec.add_bos = spm;
    spec.add_eos = !spm;
    spec.add_space_prefix = m.get_bool(key("add_space_prefix")).value_or(spm);
    spec.remove_extra_whitespaces = !spm && m.get_bool(key("remove_extra_whitespaces")).value_or(false);
    spec.fuse_unknown = true;
    spec.byte_fallback =
        std::find(spec.types.begin(), spec.types.end(), TokenType::kByte) != spec.types.end();
    std::string charsmap;
    if (!spm) {
      const auto bytes = m.get_ints(key("precompiled_charsmap"));
      for (const std::int64_t b : bytes.value_or(std::vector<std::int64_t>()))
        charsmap += static_cast<char>(b & 0xff);
    }
    set_spm_steps(charsmap, spec);
  }
  spec.add_bos = m.get_bool(key("add_bos_token")).value_or(spec.add_bos);
  spec.add_eos = m.get_bool(key("add_eos_token")).value_or(spec.add_eos);
  if (!spec.bos) spec.add_bos = false;
  if (!spec.eos) spec.add_eos = false;
  read_added(m, spec);
  complete_special_tokens(spec, true);
  return spec;
}

Status tokenizer_spec_to_gguf(const TokenizerSpec& spec, std::int64_t pad_vocab_to, gguf::Metadata& m) {
  std::string pre;
  NARROW_TRY(check_expressible(spec, pre));
  const std::size_t rows = static_cast<std::size_t>(std::max<std::int64_t>(pad_vocab_to, 0));
  if (pad_vocab_to > std::numeric_limits<std::int32_t>::max()) {
    return make_error(ErrorCode::kInvalidArgument, "a vocabulary of {} tokens is too large", pad_vocab_to);
  }
  std::vector<std::string> tokens = spec.tokens;
  std::vector<std::int32_t> types;
  for (const TokenType t : spec.types) types.push_back(static_cast<std::int32_t>(t));
  std::vector<float> scores;
  if (spec.kind != TokenizerKind::kByteBpe)
    scores = spec.scores.empty() ? scores_from_merges(spec) : spec.scores;
  for (const AddedToken& a : spec.added) {
    const auto i = static_cast<std::size_t>(a.id);
    const bool control = a.special || looks_special(tokens[i]);
    if (spec.types[i] == TokenType::kUnknown) continue;
    types[i] = static_cast<std::int32_t>(control ? TokenType::kControl : TokenType::kUserDefined);
    // llama.cpp matches these in the raw text, where spaces are spaces.
    if (!control) text::replace_all(tokens[i], text::kMetaChar, " ");
  }
  std::unordered_set<std::string> seen;
  for (std::size_t i = 0; i < std::max(tokens.size(), rows); ++i) {
    if (i >= tokens.size()) {
      tokens.emplace_back();
      types.push_back(static_cast<std::int32_t>(TokenType::kUnused));
      if (!scores.empty()) scores.push_back(kUnusedScore);
    }
    if (tokens[i].empty() || !seen.insert(tokens[i]).second) {
      tokens[i] = fmt::format("[PAD{}]", i);
      types[i] = static_cast<std::int32_t>(TokenType::kUnused);
      seen.insert(tokens[i]);
    }
  }

  const bool bpe = spec.kind == TokenizerKind::kByteBpe;
  m.set_string(key("model"), bpe ? "gpt2" : spec.kind == TokenizerKind::kSpmBpe ? "llama" : "t5");
  m.set_string(key("pre"), pre);
  m.set_strings(key("tokens"), std::move(tokens));
  if (!bpe) m.set_f32s(key("scores"), std::move(scores));
  m.set_i32s(key("token_type"), std::move(types));
  if (bpe) {
    std::vector<std::string> merges;
    merges.reserve(spec.merges.size());
    for (const auto& [left, right] : spec.merges) {
      std::string a = left, b = right;
      text::replace_all(a, " ", "Ġ");
      text::replace_all(b, " ", "Ġ");
      merges.push_back(a + ' ' + b);
    }
    m.set_strings(key("merges"), std::move(merges));
  }
  const std::pair<const char*, std::optional<std::int32_t>> ids[] = {
      {"bos_token_id", spec.bos},     {"eos_token_id", spec.eos},       {"unknown_token_id", spec.unk},
      {"padding_token_id", spec.pad}, {"seperator_token_id", spec.sep}, {"mask_token_id", spec.mask},
      {"eot_token_id", spec.eot}};
  for (const auto& [name, id] : ids) {
    if (id) m.set_u32(key(name), static_cast<std::uint32_t>(*id));
  }
  m.set_bool(key("add_bos_token"), spec.add_bos);
  m.set_bool(key("add_eos_token"), spec.add_eos);
  if (!bpe) m.set_bool(key("add_space_prefix"), spec.add_space_prefix);
  if (spec.kind == TokenizerKind::kUnigram) {
    m.set_bool(key("remove_extra_whitespaces"), spec.remove_extra_whitespaces);
    for (const text::NormStep& s : spec.normalizer) {
      if (s.kind != text::NormStep::Kind::kPrecompiled || s.content.empty()) continue;
      gguf::Array bytes;
      bytes.type = gguf::ValueType::kU8;
      bytes.items = std::vector<std::uint8_t>(s.content.begin(), s.content.end());
      m.set(key("precompiled_charsmap"), gguf::Value{std::move(bytes)});
    }
  }
  if (!spec.chat_template.empty()) m.set_string("tokenizer.chat_template", spec.chat_template);
  return {};
}

}  // namespace narrow::io

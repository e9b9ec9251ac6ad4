#include "io/tokenizer/hf_steps.h"

#include <array>
#include <utility>

#include "io/printable.h"
#include "io/tokenizer/base64.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_unicode.h"

namespace narrow::io {
namespace {

using text::DecodeStep;
using text::NormStep;
using text::PreStep;

constexpr int kMaxSequenceDepth = 8;

int count_of(const Json& j, const char* name) {
  const auto it = j.find(name);
  if (it == j.end() || !it->is_number_unsigned()) return 0;
  return static_cast<int>(std::min<std::uint64_t>(it->get<std::uint64_t>(), 1 << 20));
}

// {"String": s} or {"Regex": s}.
Status read_pattern(const Json& j, std::string& pattern, bool& is_regex) {
  const auto it = j.find("pattern");
  if (it != j.end() && it->is_object() && it->size() == 1 && it->begin()->is_string()) {
    is_regex = it->begin().key() == "Regex";
    pattern = it->begin()->get_ref<const std::string&>();
    if (is_regex || it->begin().key() == "String") return {};
  }
  return make_error(ErrorCode::kCorrupt, "tokenizer.json: a {} without a String or Regex pattern",
                    printable(text_of(j, "type")));
}

Json pattern_json(const std::string& pattern, bool is_regex) {
  return Json{{is_regex ? "Regex" : "String", pattern}};
}

// Walks Sequences; `one` gets each leaf and its type.
template <class F>
Status each_step(const Json& j, const char* list_name, const char* what, const F& one, int depth = 0) {
  if (j.is_null()) return {};
  if (!j.is_object() || depth > kMaxSequenceDepth) {
    return make_error(ErrorCode::kCorrupt, "tokenizer.json: {} is no object, or nested too deep", what);
  }
  const std::string type = text_of(j, "type");
  if (type != "Sequence") return one(j, type);
  const auto list = j.find(list_name);
  if (list == j.end() || !list->is_array()) {
    return make_error(ErrorCode::kCorrupt, "tokenizer.json: a {} Sequence without {}", what, list_name);
  }
  for (const Json& item : *list) NARROW_TRY(each_step(item, list_name, what, one, depth + 1));
  return {};
}

Error unsupported(const char* what, const std::string& type) {
  return make_error(ErrorCode::kUnsupported, "tokenizer.json: {} '{}' is not supported", what,
                    printable(type));
}

constexpr std::pair<std::string_view, NormStep::Kind> kPlainNorms[] = {
    {"NFC", NormStep::Kind::kNfc},
    {"NFD", NormStep::Kind::kNfd},
    {"NFKC", NormStep::Kind::kNfkc},
    {"NFKD", NormStep::Kind::kNfkd},
    {"Lowercase", NormStep::Kind::kLowercase}};

constexpr std::pair<std::string_view, PreStep::Merge> kBehaviours[] = {
    {"Isolated", PreStep::Merge::kIsolated},
    {"MergedWithPrevious", PreStep::Merge::kMergedWithPrevious},
    {"MergedWithNext", PreStep::Merge::kMergedWithNext},
    {"Contiguous", PreStep::Merge::kContiguous}};

Status read_behaviour(const Json& j, PreStep& s) {
  const std::string name = j.contains("behavior") ? text_of(j, "behavior") : "Isolated";
  s.removed = name == "Removed";
  if (s.removed) return {};
  for (const auto& [text, merge] : kBehaviours) {
    if (name == text) {
      s.merge = merge;
      return {};
    }
  }
  return unsupported("split behavior", name);
}

std::string behaviour_name(const PreStep& s) {
  if (s.removed) return "Removed";
  for (const auto& [text, merge] : kBehaviours) {
    if (s.merge == merge) return std::string(text);
  }
  return "Isolated";
}

Json sequence(std::vector<Json> items, const char* list_name) {
  if (items.empty()) return Json();
  if (items.size() == 1) return std::move(items[0]);
  return Json{{"type", "Sequence"}, {list_name, std::move(items)}};
}

}  // namespace

bool flag(const Json& j, const char* name, bool otherwise) {
  const auto it = j.find(name);
  return it != j.end() && it->is_boolean() ? it->get<bool>() : otherwise;
}

std::string text_of(const Json& j, const char* name) {
  const auto it = j.find(name);
  return it != j.end() && it->is_string() ? it->get_ref<const std::string&>() : std::string();
}

Status read_normalizers(const Json& json, std::vector<NormStep>& out) {
  return each_step(json, "normalizers", "normalizer", [&](const Json& j, const std::string& type) -> Status {
    NormStep s;
    for (const auto& [name, kind] : kPlainNorms) {
      if (type != name) continue;
      s.kind = kind;
      out.push_back(s);
      return {};
    }
    if (type == "Prepend") {
      s.kind = NormStep::Kind::kPrepend;
      s.content = text_of(j, "prepend");
    } else if (type == "Replace") {
      s.kind = NormStep::Kind::kReplace;
      NARROW_TRY(read_pattern(j, s.pattern, s.is_regex));
      s.content = text_of(j, "content");
    } else if (type == "Strip") {
      s.kind = NormStep::Kind::kStrip;
      s.left = flag(j, "strip_left", true);
      s.right = flag(j, "strip_right", true);
    } else if (type == "Precompiled") {
      s.kind = NormStep::Kind::kPrecompiled;
      NARROW_ASSIGN(s.content, base64_decode(text_of(j, "precompiled_charsmap")));
    } else {
      return unsupported("normalizer", type);
    }
    out.push_back(std::move(s));
    return {};
  });
}

Status read_pre_tokenizers(const Json& json, std::vector<PreStep>& out) {
  return each_step(json, "pretokenizers", "pre_tokenizer",
                   [&](const Json& j, const std::string& type) -> Status {
                     PreStep s;
                     if (type == "Split") {
                       bool is_regex = false;
                       NARROW_TRY(read_pattern(j, s.pattern, is_regex));
                       if (!is_regex) s.pattern = text::Regex::escape(s.pattern);
                       s.invert = flag(j, "invert", false);
                       NARROW_TRY(read_behaviour(j, s));
                     } else if (type == "CharDelimiterSplit") {
                       s.pattern = text::Regex::escape(text_of(j, "delimiter"));
                       s.removed = true;
                     } else if (type == "ByteLevel") {
                       s.kind = PreStep::Kind::kByteLevel;
                       s.use_regex = flag(j, "use_regex", true);
                       s.add_prefix_space = flag(j, "add_prefix_space", true);
                     } else if (type == "Digits") {
                       s.kind = PreStep::Kind::kDigits;
                       s.individual = flag(j, "individual_digits", false);
                     } else if (type == "Punctuation") {
                       s.kind = PreStep::Kind::kPunctuation;
                       NARROW_TRY(read_behaviour(j, s));
                     } else if (type == "Whitespace") {
                       s.kind = PreStep::Kind::kWhitespace;
                     } else if (type == "WhitespaceSplit") {
                       s.kind = PreStep::Kind::kWhitespaceSplit;
                     } else if (type == "Metaspace") {
                       s.kind = PreStep::Kind::kMetaspace;
                       if (j.contains("replacement") && text_of(j, "replacement") != text::kMetaChar) {
                         return unsupported("Metaspace replacement", text_of(j, "replacement"));
                       }
                       s.split = flag(j, "split", true);
                       s.prepend_scheme = text_of(j, "prepend_scheme");
                       if (s.prepend_scheme.empty())
                         s.prepend_scheme = flag(j, "add_prefix_space", true) ? "always" : "never";
                     } else {
                       return unsupported("pre_tokenizer", type);
                     }
                     out.push_back(std::move(s));
                     return {};
                   });
}

Status read_decoders(const Json& json, std::vector<DecodeStep>& out) {
  return each_step(json, "decoders", "decoder", [&](const Json& j, const std::string& type) -> Status {
    DecodeStep s;
    if (type == "ByteLevel") {
      s.kind = DecodeStep::Kind::kByteLevel;
    } else if (type == "ByteFallback") {
      s.kind = DecodeStep::Kind::kByteFallback;
    } else if (type == "Fuse") {
      s.kind = DecodeStep::Kind::kFuse;
    } else if (type == "Replace") {
      s.kind = DecodeStep::Kind::kReplace;
      NARROW_TRY(read_pattern(j, s.pattern, s.is_regex));
      s.content = text_of(j, "content");
    } else if (type == "Strip") {
      s.kind = DecodeStep::Kind::kStrip;
      s.content = text_of(j, "content");
      s.start = count_of(j, "start");
      s.stop = count_of(j, "stop");
    } else if (type == "Metaspace") {
      s.kind = DecodeStep::Kind::kMetaspace;
      const std::string scheme = text_of(j, "prepend_scheme");
      s.drop_first = scheme.empty() ? flag(j, "add_prefix_space", true) : scheme != "never";
    } else {
      return unsupported("decoder", type);
    }
    out.push_back(std::move(s));
    return {};
  });
}

Json normalizers_json(const std::vector<NormStep>& steps) {
  std::vector<Json> items;
  for (const NormStep& s : steps) {
    switch (s.kind) {
      case NormStep::Kind::kPrepend:
        items.push_back({{"type", "Prepend"}, {"prepend", s.content}});
        break;
      case NormStep::Kind::kReplace:
        items.push_back(
            {{"type", "Replace"}, {"pattern", pattern_json(s.pattern, s.is_regex)}, {"content", s.content}});
        break;
      case NormStep::Kind::kStrip:
        items.push_back({{"type", "Strip"}, {"strip_left", s.left}, {"strip_right", s.right}});
        break;
      case NormStep::Kind::kPrecompiled:
        items.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64_encode(s.content)}});
        break;
      default:
        for (const auto& [name, kind] : kPlainNorms) {
          if (s.kind == kind) items.push_back(Json::object({{"type", name}}));
        }
    }
  }
  return sequence(std::move(items), "normalizers");
}

Json pre_tokenizers_json(const std::vector<PreStep>& steps) {
  std::vector<Json> items;
  for (const PreStep& s : steps) {
    switch (s.kind) {
      case PreStep::Kind::kRegexSplit:
        items.push_back({{"type", "Split"},
                         {"pattern", pattern_json(s.pattern, true)},
                         {"behavior", behaviour_name(s)},
                         {"invert", s.invert}});
        break;
      case PreStep::Kind::kByteLevel:
        items.push_back({{"type", "ByteLevel"},
                         {"add_prefix_space", s.add_prefix_space},
                         {"trim_offsets", true},
                         {"use_regex", s.use_regex}});
        break;
      case PreStep::Kind::kDigits:
        items.push_back({{"type", "Digits"}, {"individual_digits", s.individual}});
        break;
      case PreStep::Kind::kPunctuation:
        items.push_back({{"type", "Punctuation"}, {"behavior", behaviour_name(s)}});
        break;
      case PreStep::Kind::kWhitespace:
        items.push_back(Json::object({{"type", "Whitespace"}}));
        break;
      case PreStep::Kind::kWhitespaceSplit:
        items.push_back(Json::object({{"type", "WhitespaceSplit"}}));
        break;
      case PreStep::Kind::kMetaspace:
        items.push_back({{"type", "Metaspace"},
                         {"replacement", text::kMetaChar},
                         {"prepend_scheme", s.prepend_scheme},
                         {"split", s.split}});
        break;
    }
  }
  return sequence(std::move(items), "pretokenizers");
}

Json decoders_json(const std::vector<DecodeStep>& steps) {
  std::vector<Json> items;
  for (const DecodeStep& s : steps) {
    switch (s.kind) {
      case DecodeStep::Kind::kByteLevel:
        items.push_back(
            {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}});
        break;
      case DecodeStep::Kind::kByteFallback:
        items.push_back(Json::object({{"type", "ByteFallback"}}));
        break;
      case DecodeStep::Kind::kFuse:
        items.push_back(Json::object({{"type", "Fuse"}}));
        break;
      case DecodeStep::Kind::kReplace:
        items.push_back(
            {{"type", "Replace"}, {"pattern", pattern_json(s.pattern, s.is_regex)}, {"content", s.content}});
        break;
      case DecodeStep::Kind::kStrip:
        items.push_back({{"type", "Strip"}, {"content", s.content}, {"start", s.start}, {"stop", s.stop}});
        break;
      case DecodeStep::Kind::kMetaspace:
        items.push_back({{"type", "Metaspace"},
                         {"replacement", text::kMetaChar},
                         {"prepend_scheme", s.drop_first ? "always" : "never"},
                         {"split", true}});
        break;
    }
  }
  return sequence(std::move(items), "decoders");
}

}  // namespace narrow::io

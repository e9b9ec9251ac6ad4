#include "io/tokenizer/spm_steps.h"

#include <algorithm>

#include "text/tokenizer_unicode.h"

namespace narrow::io {

using text::DecodeStep;
using text::NormStep;
using text::PreStep;

void set_spm_steps(const std::string& charsmap, text::TokenizerSpec& spec) {
  const std::string meta(text::kMetaChar);
  const auto replace = [&](std::string pattern, bool is_regex, std::string content) {
    NormStep s;
    s.kind = NormStep::Kind::kReplace;
    s.pattern = std::move(pattern);
    s.is_regex = is_regex;
    s.content = std::move(content);
    spec.normalizer.push_back(std::move(s));
  };
  if (!charsmap.empty()) {
    NormStep s;
    s.kind = NormStep::Kind::kPrecompiled;
    s.content = charsmap;
    spec.normalizer.push_back(std::move(s));
  }
  if (spec.remove_extra_whitespaces) {
    replace(R"(\A +| +\z)", true, "");
    replace(" {2,}", true, " ");
  }
  if (spec.add_space_prefix) {
    NormStep s;
    s.kind = NormStep::Kind::kPrepend;
    s.content = meta;
    spec.normalizer.push_back(std::move(s));
  }
  replace(" ", false, meta);

  DecodeStep spaces;
  spaces.kind = DecodeStep::Kind::kReplace;
  spaces.pattern = meta;
  spaces.content = " ";
  spec.decoder.push_back(std::move(spaces));
  if (spec.byte_fallback) {
    DecodeStep bytes;
    bytes.kind = DecodeStep::Kind::kByteFallback;
    spec.decoder.push_back(std::move(bytes));
  }
  DecodeStep fuse;
  fuse.kind = DecodeStep::Kind::kFuse;
  spec.decoder.push_back(std::move(fuse));
  if (spec.add_space_prefix) {
    DecodeStep strip;
    strip.kind = DecodeStep::Kind::kStrip;
    strip.content = " ";
    strip.start = 1;
    spec.decoder.push_back(std::move(strip));
    spec.decode_strips_space = true;
  }
}

bool uses_meta_space(const text::TokenizerSpec& spec) {
  const bool normalized = std::any_of(spec.normalizer.begin(), spec.normalizer.end(), [](const NormStep& s) {
    return s.kind == NormStep::Kind::kReplace && s.content == text::kMetaChar && s.pattern == " ";
  });
  return normalized || std::any_of(spec.pre_tokenizer.begin(), spec.pre_tokenizer.end(),
                                   [](const PreStep& s) { return s.kind == PreStep::Kind::kMetaspace; });
}

}  // namespace narrow::io

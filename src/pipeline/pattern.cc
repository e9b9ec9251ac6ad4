#include "pipeline/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace narrow::pipeline {

struct Pattern::Impl {
  explicit Impl(pcre2_code* c) : code(c) {}
  ~Impl() { pcre2_code_free(code); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  pcre2_code* code;
};

Result<Pattern> Pattern::compile(std::string_view source) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(), 0, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(error, text, sizeof(text));
    return make_error(ErrorCode::kInvalidArgument, "regular expression '{}': {} at offset {}", source,
                      reinterpret_cast<const char*>(text), offset);
  }
  Pattern p;
  p.impl_ = std::make_shared<const Impl>(code);
  return p;
}

bool Pattern::found_in(std::string_view text) const {
  pcre2_match_data* match = pcre2_match_data_create_from_pattern(impl_->code, nullptr);
  const int rc =
      pcre2_match(impl_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, match, nullptr);
  pcre2_match_data_free(match);
  return rc >= 0;
}

}  // namespace narrow::pipeline

// A regular expression (PCRE2) searched in tensor names.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace narrow::pipeline {

class Pattern {
 public:
  // kInvalidArgument with PCRE2's own words and the offset.
  static Result<Pattern> compile(std::string_view source);
  // True if it matches anywhere in `text`. A pattern that needs more steps than PCRE2 allows does not match.
  bool found_in(std::string_view text) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace narrow::pipeline

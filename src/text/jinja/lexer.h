// Source text to tokens, with Jinja's white space rules under trim_blocks and lstrip_blocks.
// Source: Jinja 3.1 template designer documentation and the behaviour of the jinja2 package.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace narrow::text::jinja {

enum class TokenKind : std::uint8_t {
  kData,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // data, name, decoded string, or the operator
  Value number;      // kInteger, kFloat
  int line = 1, column = 1;
};

// Throws TemplateError with line and column. The last token is kEnd.
std::vector<Token> tokenize(std::string_view source);

}  // namespace narrow::text::jinja

// Tokens to the template's tree.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace narrow::text::jinja {

// Throws TemplateError with line and column.
Body parse_template(std::string_view source);

}  // namespace narrow::text::jinja

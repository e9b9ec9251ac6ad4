// What is told of a tokenizer's special tokens by their texts alone, because files do not say it.
#pragma once

#include <string_view>

#include "text/tokenizer_spec.h"

namespace narrow::io {

// Fills end_tokens (and eot) from the ids that the spec has and from the texts that models end a turn with,
// as llama.cpp does. With `mark`, tokens with such a text become special even where the file calls them plain
// (GGUF files are known to be wrong there); without, only added tokens count.
void complete_special_tokens(text::TokenizerSpec& spec, bool mark);

bool looks_special(std::string_view token);  // "<|...|>" and the like, which files forget to mark

}  // namespace narrow::io

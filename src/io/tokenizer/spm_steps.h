// SentencePiece's flags as normalizer and decoder steps, and back.
#pragma once

#include <string>

#include "text/tokenizer_spec.h"

namespace narrow::io {

// From add_space_prefix, remove_extra_whitespaces, byte_fallback and the charsmap (may be empty).
void set_spm_steps(const std::string& charsmap, text::TokenizerSpec& spec);

// True when spaces become U+2581 somewhere on the way in.
bool uses_meta_space(const text::TokenizerSpec& spec);

}  // namespace narrow::io

// tokenizer.json of Hugging Face's tokenizers library.
#pragma once

#include <cstdint>

#include "io/hf_config/hf_folder.h"
#include "text/tokenizer_spec.h"

namespace narrow::io {

constexpr std::int64_t kMaxId = 1 << 24;  // of a token; a folder that names a greater one is refused

// Everything but what tokenizer_config.json adds. kUnsupported names the component that narrow does not have.
Result<text::TokenizerSpec> parse_tokenizer_json(const Json& json);

// Tokens by content: for the names of special tokens in the config files.
std::optional<std::int32_t> find_token(const text::TokenizerSpec& spec, std::string_view content);

}  // namespace narrow::io

// SentencePiece's tokenizer.model: the part of its protobuf (sentencepiece_model.proto) that defines the ids.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/tokenizer_spec.h"

namespace narrow::io {

// kCorrupt when a length leaves the file; kUnsupported for the model types word and char.
Result<text::TokenizerSpec> parse_sentencepiece(std::string_view bytes);

}  // namespace narrow::io

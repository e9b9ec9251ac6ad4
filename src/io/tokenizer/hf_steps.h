// The normalizer, pre_tokenizer and decoder parts of tokenizer.json, both ways.
#pragma once

#include <vector>

#include "io/hf_config/hf_folder.h"
#include "text/tokenizer_spec.h"

namespace narrow::io {

// A member of tokenizer.json's objects; `otherwise` or "" where there is none of that kind.
bool flag(const Json& j, const char* name, bool otherwise = false);
std::string text_of(const Json& j, const char* name);

// null: no steps. Sequences are flattened. kUnsupported names a type that narrow does not have.
Status read_normalizers(const Json& j, std::vector<text::NormStep>& out);
Status read_pre_tokenizers(const Json& j, std::vector<text::PreStep>& out);
Status read_decoders(const Json& j, std::vector<text::DecodeStep>& out);

Json normalizers_json(const std::vector<text::NormStep>& steps);
Json pre_tokenizers_json(const std::vector<text::PreStep>& steps);
Json decoders_json(const std::vector<text::DecodeStep>& steps);

}  // namespace narrow::io

// Tokenizer specs from and to files.
#pragma once

#include <filesystem>

#include "io/gguf/metadata.h"
#include "io/hf_config/hf_folder.h"
#include "text/tokenizer_spec.h"

namespace narrow::io {

// From a Hugging Face folder: tokenizer.json, else tokenizer.model, else vocab.json + merges.txt (or GPT-2's
// own encoder.json + vocab.bpe); with tokenizer_config.json, generation_config.json (eos ids) and the chat
// template where present. kNotFound names the files looked for.
Result<text::TokenizerSpec> tokenizer_spec_from_folder(const std::filesystem::path& folder);
// One file: tokenizer.json or a SentencePiece model (told apart by content).
Result<text::TokenizerSpec> tokenizer_spec_from_file(const std::filesystem::path& file);

// A model path of either kind: a GGUF file or a Hugging Face folder.
Result<text::TokenizerSpec> tokenizer_spec_from_model(const std::filesystem::path& path);

// GGUF's tokenizer.* keys. kUnsupported names an unknown tokenizer.ggml.model; an unknown tokenizer.ggml.pre
// too.
Result<text::TokenizerSpec> tokenizer_spec_from_gguf(const gguf::Metadata& metadata);
// Sets every tokenizer.* key that llama.cpp reads. `pad_vocab_to`: rows of the embedding, if more than
// tokens.
Status tokenizer_spec_to_gguf(const text::TokenizerSpec& spec, std::int64_t pad_vocab_to,
                              gguf::Metadata& metadata);

// tokenizer.json and tokenizer_config.json that Hugging Face's libraries load to the same ids.
Result<Json> tokenizer_spec_to_json(const text::TokenizerSpec& spec);
Json tokenizer_spec_to_config_json(const text::TokenizerSpec& spec);

}  // namespace narrow::io

// The metadata of an output file: the source's own, its tokenizer, and where the file comes from.
// Nothing in it depends on the time, the machine or the number of threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "io/gguf/metadata.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"

namespace narrow::pipeline {

inline constexpr std::uint32_t kQuantizationVersion = 2;  // of ggml's block layouts

// The source's metadata, with tokenizer.* for a Hugging Face folder (a folder without tokenizer files gets
// tokenizer.ggml.model "none" and a note). kCorrupt: a vocabulary larger than the embedding.
Result<io::gguf::Metadata> base_metadata(const model::ModelSource& source, ProgressSink& progress);

// narrow.version, narrow.source.name, narrow.source.sha256 (of `digest`, "sha256:..."), narrow.recipe.
void add_provenance(const std::filesystem::path& source, const std::string& digest, const std::string& recipe,
                    io::gguf::Metadata& metadata);

// The options that decide the output's bytes, as JSON on one line; files that they name by their SHA-256.
// With `planning` no file is read and the digests are placeholders of the same length. Errors: those files
// cannot be read.
Result<std::string> quantize_recipe(const QuantizeOptions& options, std::string_view mix_name, bool planning);

// A digest's length, for planning sizes before anything is read.
std::string placeholder_digest();  // "sha256:..."
std::string placeholder_sha256();  // the digits alone

// llama.cpp's file type for a model whose matrices are stored in f32, f16 or bf16.
std::uint32_t float_file_type(Format f);

}  // namespace narrow::pipeline

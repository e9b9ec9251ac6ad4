// Where everything of a GGUF output lies, before a byte is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/gguf/metadata.h"
#include "io/gguf/writer.h"

namespace narrow::io::gguf {

struct PartLayout {
  std::string header;                  // from the magic to the end of the tensor infos
  std::size_t first_tensor = 0;        // of this part
  std::vector<std::uint64_t> offsets;  // of its tensors, from the start of the file
  std::vector<std::uint64_t> bytes;
  std::uint64_t total_bytes = 0;  // padding after the last tensor included
};

// kInvalidArgument or kUnsupported names the key or tensor that GGUF, or llama.cpp, cannot hold.
Result<std::vector<PartLayout>> lay_out(const Metadata& metadata, const std::vector<TensorInfo>& tensors,
                                        const WriterOptions& options);

bool is_split(const WriterOptions& options);

// The file of each part: `path` itself, or the names that llama-gguf-split gives to parts of it.
std::vector<std::filesystem::path> part_paths(const std::filesystem::path& path, std::size_t n_parts,
                                              const WriterOptions& options);

}  // namespace narrow::io::gguf

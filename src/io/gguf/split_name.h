// Names of the parts of a split GGUF: "<prefix>-00002-of-00005.gguf", numbered from 1 (llama.cpp's
// convention).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace narrow::io::gguf {

struct SplitName {
  std::filesystem::path prefix;  // with its folder
  int no = 0;                    // from 0
  int count = 0;
};

std::optional<SplitName> parse_split_name(const std::filesystem::path& path);
std::filesystem::path split_part_path(const std::filesystem::path& prefix, int no, int count);

}  // namespace narrow::io::gguf

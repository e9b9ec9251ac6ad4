// One safetensors file's header, checked against the file; reader.cc joins shards.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "io/safetensors/reader.h"

namespace narrow::io::safetensors {

struct ParsedFile {
  std::vector<StoredTensor> tensors;  // by name; part is 0
  std::map<std::string, std::string> metadata;
};

Result<ParsedFile> parse_file(const MappedFile& file);

}  // namespace narrow::io::safetensors

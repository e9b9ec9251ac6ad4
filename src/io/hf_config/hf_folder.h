// The JSON files of a Hugging Face model folder.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/result.h"

namespace narrow::io {

// Keeps the order of keys, as tokenizer.json and templates need. Finding a key in an object takes time in
// proportion to the object's size: iterate over large ones (vocabularies).
using Json = nlohmann::ordered_json;

// Parses a JSON file within caps::kMaxJsonBytes and kMaxJsonDepth; kCorrupt with line and column. Of a key
// that is there twice the last value counts.
Result<Json> read_json(const std::filesystem::path& path);

struct HfFolder {
  std::filesystem::path path;
  Json config;                            // config.json; required
  std::optional<Json> generation_config;  // generation_config.json
  std::optional<Json> tokenizer_config;   // tokenizer_config.json
  std::optional<std::string>
      chat_template;  // chat_template.jinja, else tokenizer_config's chat_template (its "default")
  static Result<HfFolder> open(const std::filesystem::path& folder);
};

}  // namespace narrow::io

// JSON text to a value, within caps::kMaxJsonDepth.
#pragma once

#include <string>
#include <string_view>

#include "io/hf_config/hf_folder.h"

namespace narrow::io {

enum class DuplicateKeys {
  kLastWins,  // as Python's json and serde_json do
  kError,
};

// kCorrupt: "<where>: parse error at line 3, column 7: ...". Takes linear time for objects of any size, which
// ordered_json's own parser does not: it looks up every key in a list.
Result<Json> parse_json(std::string_view text, const std::string& where,
                        DuplicateKeys duplicates = DuplicateKeys::kLastWins);

}  // namespace narrow::io

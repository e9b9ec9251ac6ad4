// --json FILE|-: machine-readable results.
#pragma once

#include <string>

#include "narrow/result.h"

namespace narrow::cli {

// Writes `json` and a newline to standard output for "-", else whole to the file.
Status write_json(const std::string& target, const std::string& json);

}  // namespace narrow::cli

#include "cli/json_output.h"

#include <fmt/format.h>

#include "narrow/system.h"

namespace narrow::cli {

Status write_json(const std::string& target, const std::string& json) {
  if (target != "-") return write_text_file(target, json + "\n");
  fmt::print("{}\n", json);
  return {};
}

}  // namespace narrow::cli

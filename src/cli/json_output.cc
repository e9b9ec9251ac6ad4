#include "cli/json_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace narrow::cli {

Status write_json(const std::string& target, const std::string& json) {
  if (target == "-") {
    fmt::print("{}\n", json);
    return {};
  }
  const std::string temp = fmt::format("{}.tmp-{}", target, ::getpid());
  std::FILE* f = std::fopen(temp.c_str(), "w");
  bool ok = f != nullptr;
  if (f) {
    ok = std::fwrite(json.data(), 1, json.size(), f) == json.size() && std::fputc('\n', f) != EOF;
    ok = std::fclose(f) == 0 && ok;
  }
  if (ok && std::rename(temp.c_str(), target.c_str()) == 0) return {};
  const int e = errno;
  std::remove(temp.c_str());
  return Error{e == ENOSPC ? ErrorCode::kNoSpace : ErrorCode::kIo,
               fmt::format("{}: cannot write the JSON: {}", target, std::strerror(e))};
}

}  // namespace narrow::cli

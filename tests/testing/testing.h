// Shared helpers of all tests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

// The Status or Result is ok; prints the error's text when not.
#define ASSERT_OK(expr)                                                        \
  do {                                                                         \
    const auto& narrow_r_ = (expr);                                            \
    ASSERT_TRUE(narrow_r_.ok()) << #expr << ": " << narrow_r_.error().message; \
  } while (0)
#define EXPECT_OK(expr)                                                        \
  do {                                                                         \
    const auto& narrow_r_ = (expr);                                            \
    EXPECT_TRUE(narrow_r_.ok()) << #expr << ": " << narrow_r_.error().message; \
  } while (0)
// ASSERT_OK_AND_ASSIGN(auto x, f()): unwrap or fail the test.
#define NARROW_TEST_CONCAT_(a, b) a##b
#define NARROW_TEST_CONCAT(a, b) NARROW_TEST_CONCAT_(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) ASSERT_OK_AND_ASSIGN_(NARROW_TEST_CONCAT(r_, __COUNTER__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_(tmp, lhs, expr)                                      \
  auto tmp = (expr);                                                               \
  ASSERT_TRUE(tmp.ok()) << #expr << ": " << (tmp.ok() ? "" : tmp.error().message); \
  lhs = std::move(tmp).value()

namespace narrow::testing {

// shared/data beside the checkout (NARROW_SHARED overrides); tests that need it call
// NARROW_REQUIRE_SHARED(), which skips, and says so, where it is absent.
std::filesystem::path shared_data();
bool has_shared_data();

// Downloaded real models (scripts/models.sh): NARROW_CACHE, default ~/.cache/narrow.
std::filesystem::path cache_dir();

// Python with the oracle packages (NARROW_PYTHON; scripts/test makes a venv in the cache). Empty when absent.
std::string oracle_python();
// Runs `python -c code args...` and returns its standard output; fails the test when it exits non-zero.
std::string run_python(const std::string& code, const std::vector<std::string>& args = {});

// A folder of this test's own, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::filesystem::path& p);
void write_file(const std::filesystem::path& p, std::string_view bytes);

// Runs a command (no shell), captures both streams and the exit code.
struct CommandResult {
  int exit_code = -1;
  std::string out, err;
};
CommandResult run_command(const std::vector<std::string>& argv, const std::string& input = {});

}  // namespace narrow::testing

#define NARROW_REQUIRE_SHARED()                           \
  if (!::narrow::testing::has_shared_data()) {            \
    GTEST_SKIP() << "no shared data beside the checkout"; \
  }
#define NARROW_REQUIRE_PYTHON()                         \
  if (::narrow::testing::oracle_python().empty()) {     \
    GTEST_SKIP() << "no oracle python (NARROW_PYTHON)"; \
  }

// Result/Status with formatted construction and early return, for use inside the library.
#pragma once

#include <fmt/format.h>

#include "narrow/result.h"

namespace narrow {

// make_error(ErrorCode::kCorrupt, "{}: tensor '{}' ends at {} past the file's {} bytes", ...)
template <class... Args>
Error make_error(ErrorCode code, fmt::format_string<Args...> f, Args&&... args) {
  return Error{code, fmt::format(f, std::forward<Args>(args)...)};
}

// The same error with a prefix that says where: "reading model.gguf: ...".
inline Error with_context(const Error& e, const std::string& where) {
  return Error{e.code, where + ": " + e.message};
}

}  // namespace narrow

#define NARROW_CONCAT_INNER(a, b) a##b
#define NARROW_CONCAT(a, b) NARROW_CONCAT_INNER(a, b)

// Return the error of a Status (or of a Result whose value is not needed) to the caller.
#define NARROW_TRY(expr)                                                                   \
  do {                                                                                     \
    if (auto narrow_status_ = (expr); !narrow_status_.ok()) return narrow_status_.error(); \
  } while (0)

// NARROW_ASSIGN(auto x, make_x()): unwrap a Result or return its error.
#define NARROW_ASSIGN(lhs, expr) NARROW_ASSIGN_IMPL(NARROW_CONCAT(narrow_result_, __COUNTER__), lhs, expr)
#define NARROW_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                       \
  if (!tmp.ok()) return tmp.error();       \
  lhs = std::move(tmp).value()

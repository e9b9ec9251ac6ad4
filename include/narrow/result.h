// Errors as values. The library never aborts, throws across its API or prints.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace narrow {

// What went wrong, in the classes that the command line turns into exit codes.
enum class ErrorCode {
  kInvalidArgument,  // an option or argument is wrong; nothing was read yet
  kNotFound,         // a named file, tensor, key or registry entry does not exist
  kCorrupt,          // a file breaks its format or its own declared sizes
  kUnsupported,      // well-formed, but narrow has no code for it
  kRefused,          // possible, but unsafe unless the user asks for it by an option
  kIo,               // reading or writing failed
  kNoSpace,          // the disk is full or too small
  kOutOfMemory,
  kNumeric,  // NaN or infinity where a number is needed
  kCancelled,
  kInternal,  // a bug in narrow
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one line: names file, tensor, value and the fix
};

// Success, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error e) : error_(std::move(e)) {}
  static Status ok_status() { return {}; }
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    assert(error_);
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

// A T, or an Error. Read `value()` only after `ok()`.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T v) : v_(std::in_place_index<0>, std::move(v)) {}
  Result(Error e) : v_(std::in_place_index<1>, std::move(e)) {}
  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    assert(ok());
    return *std::get_if<0>(&v_);
  }
  const T& value() const& {
    assert(ok());
    return *std::get_if<0>(&v_);
  }
  T&& value() && {
    assert(ok());
    return std::move(*std::get_if<0>(&v_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const {
    assert(!ok());
    return *std::get_if<1>(&v_);
  }
  Status status() const { return ok() ? Status() : Status(error()); }

 private:
  std::variant<T, Error> v_;
};

}  // namespace narrow

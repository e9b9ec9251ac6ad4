// The outermost frame of every public call: what third-party code may throw becomes an Error.
#pragma once

#include <exception>
#include <new>

#include "base/result.h"

namespace narrow::api {

template <class F>
auto guarded(F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "out of memory: use a smaller context or a smaller model");
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kInternal, "unexpected: {}", e.what());
  }
}

}  // namespace narrow::api

// The engine's options from the public API in the runtime's terms.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "narrow/engine.h"
#include "runtime/session.h"

namespace narrow::api {

// kInvalidArgument names the option, its value and what can be asked for.
Result<runtime::LoadOptions> load_options(const EngineOptions& options);
Result<runtime::SessionOptions> session_options(const EngineOptions& options, std::int64_t n_ctx);

}  // namespace narrow::api

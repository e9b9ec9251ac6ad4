// Options of every subcommand that runs a model.
#pragma once

#include <CLI/CLI.hpp>

#include "narrow/engine.h"

namespace narrow::cli {

void add_engine_options(CLI::App& sub, EngineOptions& options);

}  // namespace narrow::cli

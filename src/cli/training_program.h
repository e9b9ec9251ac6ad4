// Training lives in a program of its own, so that narrow starts without libtorch (docs/decisions/0017).
#pragma once

#include <CLI/CLI.hpp>
#include <optional>

namespace narrow::cli {

// Names of the commands that narrow-train has, for `narrow --help`.
void add_training_help(CLI::App& app);

// When the command is one of them: becomes narrow-train with the same arguments (it is looked for beside this
// program, in ../libexec, then on PATH). Returns only where that fails, with the exit code, after a message;
// nullopt for every other command.
std::optional<int> run_training_program(int argc, char** argv);

}  // namespace narrow::cli

// What narrow and narrow-train have in common as programs: options for all, errors, exit codes.
#pragma once

#include "cli/command.h"

namespace narrow::cli {

struct Program {
  const char* description;
  const char* examples;  // lines for the end of --help
  void (*add_commands)(CLI::App& app, Context& context);
};

// The whole of main(). Messages are the user's `narrow`, whichever program runs.
int run_program(int argc, char** argv, const Program& program);

}  // namespace narrow::cli

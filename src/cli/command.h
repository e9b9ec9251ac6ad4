// One subcommand per file; main.cc lists them. Subcommands use include/narrow/ only.
#pragma once

#include <CLI/CLI.hpp>

#include "narrow/narrow.h"

namespace narrow::cli {

// Options that every subcommand shares, and what it draws progress with.
struct Context {
  int threads = 0;     // --threads; 0: all physical cores
  bool pin = false;    // --pin: each thread on a core of its own
  bool quiet = false;  // --quiet: no progress
  int exit_code = 0;   // set by the subcommand's callback
};

// A bar with rate and ETA when standard error is a terminal, plain lines otherwise, nothing when quiet.
std::unique_ptr<ProgressSink> make_progress(const Context& context);

// Prints "narrow: error: <message>" to standard error and returns the exit code of its class:
// 0 success, 1 internal, 2 usage (kInvalidArgument), 3 bad input (kNotFound, kCorrupt, kUnsupported,
// kNumeric), 4 refused, 5 input/output and disk full, 6 out of memory, 130 cancelled.
int report_error(const Error& error);

// Each adds its subcommand to the app; the callback does the work and sets context.exit_code.
void add_quantize(CLI::App& app, Context& context);
void add_calibrate(CLI::App& app, Context& context);
void add_convert(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_report(CLI::App& app, Context& context);

}  // namespace narrow::cli

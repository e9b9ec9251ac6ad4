#include "cli/program.h"

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

namespace narrow::cli {
namespace {

constexpr int kExitInternal = 1;
constexpr int kExitUsage = 2;
constexpr int kExitOutOfMemory = 6;

constexpr const char* kFooter =
    "`narrow COMMAND --help` explains each command.\n"
    "\n"
    "Exit codes: 0 success; 1 internal error; 2 wrong usage; 3 bad input (missing, damaged or unsupported);\n"
    "4 refused for safety, an option allows it; 5 reading or writing failed, or the disk is full;\n"
    "6 out of memory; 130 cancelled.";

// The subcommand that the error is about, for the hint at its end.
std::string help_hint(const CLI::App& app) {
  const auto used = app.get_subcommands();
  return fmt::format("see `narrow {}--help`", used.empty() ? "" : used.front()->get_name() + " ");
}

int report_usage(const CLI::App& app, const std::string& what) {
  std::string line = what;
  for (char& c : line) c = c == '\n' ? ' ' : c;
  fmt::print(stderr, "narrow: error: {}; {}\n", line, help_hint(app));
  return kExitUsage;
}

int run(int argc, char** argv, const Program& program) {
  Context context;
  CLI::App app(program.description, "narrow");
  app.set_version_flag("--version",
                       [] { return fmt::format("narrow {} ({})", NARROW_VERSION, isa_description()); });
  app.add_option("--threads", context.threads, "Threads to use; 0: all physical cores")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--pin", context.pin, "Bind each thread to a core of its own");
  app.add_flag("-q,--quiet", context.quiet, "No progress on standard error");
  app.fallthrough();
  app.require_subcommand(0, 1);
  app.footer(std::string(program.examples) + kFooter);
  app.parse_complete_callback([&context] {
    set_threads(context.threads);
    set_thread_pinning(context.pin);
  });

  program.add_commands(app, context);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForAllHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return report_usage(app, e.what());
  }
  if (app.get_subcommands().empty()) return report_usage(app, "no command given");
  // Output that never arrived is a failure: a full disk behind a redirection, a closed pipe.
  if (std::fflush(stdout) != 0 && context.exit_code == 0) {
    return report_error({ErrorCode::kIo, "writing to standard output failed"});
  }
  return context.exit_code;
}

}  // namespace

int report_error(const Error& error) {
  fmt::print(stderr, "narrow: error: {}\n", error.message);
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported:
    case ErrorCode::kNumeric:
      return 3;
    case ErrorCode::kRefused:
      return 4;
    case ErrorCode::kIo:
    case ErrorCode::kNoSpace:
      return 5;
    case ErrorCode::kOutOfMemory:
      return kExitOutOfMemory;
    case ErrorCode::kCancelled:
      return 130;
    case ErrorCode::kInternal:
      break;
  }
  return kExitInternal;
}

int run_program(int argc, char** argv, const Program& program) {
  // A file size limit is then a failed write with a message, not the death of the process with a partial
  // file.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv, program);
  } catch (const std::bad_alloc&) {
    std::fputs("narrow: error: out of memory\n", stderr);
    return kExitOutOfMemory;
  } catch (const std::exception& e) {
    fmt::print(stderr, "narrow: error: unexpected: {}\n", e.what());
    return kExitInternal;
  }
}

}  // namespace narrow::cli

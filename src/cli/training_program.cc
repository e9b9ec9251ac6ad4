#include "cli/training_program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include "cli/command.h"

namespace narrow::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "narrow-train";

struct Row {
  const char* name;
  const char* description;
};
constexpr std::array<Row, 4> kCommands = {{
    {"qat", "Quantization-aware training: make a quantized file nearer to its source"},
    {"finetune", "Train a model further on texts, or to another model's answers"},
    {"pretrain", "Train a small model from nothing"},
    {"gradients", "Collect what a model's answers depend on, to quantize by"},
}};

// The first argument that is neither an option nor an option's value.
std::string_view command_of(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--threads") {
      ++i;
    } else if (!arg.starts_with('-')) {
      return arg;
    }
  }
  return {};
}

bool is_training(std::string_view command) {
  for (const Row& r : kCommands) {
    if (command == r.name) return true;
  }
  return false;
}

bool runs(const fs::path& file) {
  std::error_code ec;
  return fs::is_regular_file(file, ec) && ::access(file.c_str(), X_OK) == 0;
}

fs::path find_program() {
  std::error_code ec;
  const fs::path here = fs::read_symlink("/proc/self/exe", ec).parent_path();
  if (!here.empty()) {
    for (const fs::path& candidate : {here / kName, here.parent_path() / "libexec" / kName}) {
      if (runs(candidate)) return candidate;
    }
  }
  const char* path = std::getenv("PATH");
  for (std::string_view rest = path != nullptr ? path : ""; !rest.empty();) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    const fs::path candidate = fs::path(rest.substr(0, end)) / kName;
    if (end > 0 && runs(candidate)) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

}  // namespace

void add_training_help(CLI::App& app) {
  for (const Row& r : kCommands) app.add_subcommand(r.name, r.description);
}

std::optional<int> run_training_program(int argc, char** argv) {
  const std::string_view command = command_of(argc, argv);
  if (!is_training(command)) return std::nullopt;
  const fs::path program = find_program();
  if (program.empty()) {
    return report_error(
        {ErrorCode::kUnsupported,
         fmt::format("{} needs {}, which was not built for want of libtorch: `apt install libtorch-dev "
                     "libopenblas0-openmp`, then run cmake and build again",
                     command, kName)});
  }
  std::string name = program.string();
  argv[0] = name.data();
  ::execv(name.c_str(), argv);
  return report_error(
      {ErrorCode::kIo, fmt::format("{}: cannot be started: {}", program.string(), std::strerror(errno))});
}

}  // namespace narrow::cli

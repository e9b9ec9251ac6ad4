#include "cli/program.h"
#include "cli/training_program.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  narrow quantize model-f16.gguf -o model-q4_k_m.gguf --type q4_k_m\n"
    "  narrow eval model-q4_k_m.gguf --ref model-f16.gguf --text wiki.test.raw\n"
    "  narrow run model-q4_k_m.gguf \"The capital of France is\"\n"
    "  narrow inspect model-q4_k_m.gguf\n";

void add_commands(CLI::App& app, Context& context) {
  add_quantize(app, context);
  add_calibrate(app, context);
  add_eval(app, context);
  add_run(app, context);
  add_bench(app, context);
  add_report(app, context);
  add_inspect(app, context);
  add_convert(app, context);
  add_list(app, context);
  add_training_help(app);
}

}  // namespace
}  // namespace narrow::cli

int main(int argc, char** argv) {
  using namespace narrow::cli;
  if (const auto ended = run_training_program(argc, argv)) return *ended;
  return run_program(argc, argv,
                     {"Compress language models by quantization, measure what was lost, and run them.",
                      kExamples, add_commands});
}

#include <fmt/format.h>

#include <memory>

#include "cli/interrupt.h"
#include "cli/train/commands.h"
#include "cli/train/fields.h"

namespace narrow::cli {
namespace {

struct QatArgs {
  QatOptions options;
  Status recipe;
  std::string json;
  bool print_graph = false;
};

Status run(const QatArgs& a, const Context& context) {
  if (!a.recipe.ok()) return a.recipe;
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  if (a.print_graph) {
    const auto nodes = qat_graph(a.options, *progress);
    if (!nodes.ok()) return nodes.error();
    fmt::print("{}", graph_text(*nodes));
    return {};
  }
  const auto report = qat(a.options, *progress);
  if (!report.ok()) return report.error();
  return print_training(*report, a.json);
}

}  // namespace

void add_qat(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("qat", "Quantization-aware training: make a quantized file nearer to its source");
  sub->footer(
      "Examples:\n"
      "  narrow qat model-f32.gguf --type q4_0 --text corpus.txt --minutes 60 -o model-q4_0.gguf\n"
      "  narrow qat model-f32.gguf --start model-q2_k.gguf --text corpus.txt --steps 400 -o "
      "better-q2_k.gguf\n"
      "  narrow qat --recipe q4.json --resume\n"
      "  torchrun --nproc-per-node 2 --no-python narrow qat model-f32.gguf --type q4_0 --text corpus.txt "
      "--steps 400 "
      "-o model-q4_0.gguf");
  auto args = std::make_shared<QatArgs>();
  add_fields(*sub, args->options, args->recipe);
  sub->add_flag("--print-graph", args->print_graph, "Show what is fake-quantized where, and end");
  sub->add_option("--json", args->json, "Write the report as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

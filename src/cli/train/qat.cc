#include <fmt/format.h>

#include "cli/train/training_command.h"

namespace narrow::cli {
namespace {

using Args = TrainingArgs<QatOptions>;

Status print_graph(const Args& a, const Context& context) {
  if (!a.recipe.ok()) return a.recipe;
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto nodes = qat_graph(a.options, *progress);
  if (!nodes.ok()) return nodes.error();
  fmt::print("{}", graph_text(*nodes));
  return {};
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
  const auto graph = std::make_shared<bool>(false);
  add_training(*sub, context, std::make_shared<Args>(), [graph, &context](const Args& a) {
    return *graph ? print_graph(a, context) : run_training(a, context, qat);
  });
  sub->add_flag("--print-graph", *graph, "Show what is fake-quantized where, and end");
}

}  // namespace narrow::cli

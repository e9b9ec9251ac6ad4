#include <memory>

#include "cli/interrupt.h"
#include "cli/train/commands.h"
#include "cli/train/fields.h"

namespace narrow::cli {
namespace {

struct FinetuneArgs {
  FinetuneOptions options;
  Status recipe;
  std::string json;
};

Status run(const FinetuneArgs& a, const Context& context) {
  if (!a.recipe.ok()) return a.recipe;
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = finetune(a.options, *progress);
  if (!report.ok()) return report.error();
  return print_training(*report, a.json);
}

}  // namespace

void add_finetune(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("finetune", "Train a model further on texts, or to another model's answers");
  sub->footer(
      "Examples:\n"
      "  narrow finetune model-f32.gguf --train lora --text chats.jsonl --steps 200 -o tuned.gguf\n"
      "  narrow finetune small.gguf --teacher large.gguf --kl-weight 1 --text corpus.txt --steps 1000 -o "
      "better.gguf");
  auto args = std::make_shared<FinetuneArgs>();
  add_fields(*sub, args->options, args->recipe);
  sub->add_option("--json", args->json, "Write the report as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

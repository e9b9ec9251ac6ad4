#include <memory>

#include "cli/interrupt.h"
#include "cli/train/commands.h"
#include "cli/train/fields.h"

namespace narrow::cli {
namespace {

struct PretrainArgs {
  PretrainOptions options;
  Status recipe;
  std::string json;
};

Status run(const PretrainArgs& a, const Context& context) {
  if (!a.recipe.ok()) return a.recipe;
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = pretrain(a.options, *progress);
  if (!report.ok()) return report.error();
  return print_training(*report, a.json);
}

}  // namespace

void add_pretrain(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("pretrain", "Train a small model from nothing");
  sub->footer(
      "Example:\n"
      "  narrow pretrain config.json --tokenizer tokenizer.model --text corpus.txt --steps 20000 -o "
      "small.gguf");
  auto args = std::make_shared<PretrainArgs>();
  add_fields(*sub, args->options, args->recipe);
  sub->add_option("--json", args->json, "Write the report as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

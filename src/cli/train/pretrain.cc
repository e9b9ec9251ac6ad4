#include "cli/train/training_command.h"

namespace narrow::cli {

void add_pretrain(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("pretrain", "Train a small model from nothing");
  sub->footer(
      "Example:\n"
      "  narrow pretrain config.json --tokenizer tokenizer.model --text corpus.txt --steps 20000 -o "
      "small.gguf");
  add_training(*sub, context, std::make_shared<TrainingArgs<PretrainOptions>>(),
               [&context](const auto& a) { return run_training(a, context, pretrain); });
}

}  // namespace narrow::cli

#include "cli/train/training_command.h"

namespace narrow::cli {

void add_finetune(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("finetune", "Train a model further on texts, or to another model's answers");
  sub->footer(
      "Examples:\n"
      "  narrow finetune model-f32.gguf --train lora --text chats.jsonl --steps 200 -o tuned.gguf\n"
      "  narrow finetune small.gguf --teacher large.gguf --kl-weight 1 --text corpus.txt --steps 1000 -o "
      "better.gguf");
  add_training(*sub, context, std::make_shared<TrainingArgs<FinetuneOptions>>(),
               [&context](const auto& a) { return run_training(a, context, finetune); });
}

}  // namespace narrow::cli

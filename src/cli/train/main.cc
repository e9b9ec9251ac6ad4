// narrow-train: what `narrow qat`, `narrow finetune` and `narrow pretrain` become.
#include "cli/program.h"
#include "cli/train/commands.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  narrow qat model-f32.gguf --type q4_0 --text corpus.txt --minutes 60 -o model-q4_0.gguf\n"
    "  narrow qat model-f32.gguf --start model-q2_k.gguf --text corpus.txt --steps 400 -o better-q2_k.gguf\n"
    "  narrow finetune model-f32.gguf --train lora --text chats.jsonl --steps 200 -o tuned.gguf\n"
    "  narrow pretrain config.json --tokenizer tokenizer.model --text corpus.txt --steps 20000 -o "
    "small.gguf\n";

void add_commands(CLI::App& app, Context& context) {
  add_qat(app, context);
  add_finetune(app, context);
  add_pretrain(app, context);
  add_gradients(app, context);
}

}  // namespace
}  // namespace narrow::cli

int main(int argc, char** argv) {
  using namespace narrow::cli;
  return run_program(
      argc, argv, {"Train models: to quantized files, further, or from nothing.", kExamples, add_commands});
}

#include <fmt/format.h>

#include "cli/interrupt.h"
#include "cli/text.h"
#include "cli/train/commands.h"

namespace narrow::cli {
namespace {

Status run(const GradientOptions& o, const Context& context) {
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = gradients(o, *progress);
  if (!report.ok()) return report.error();
  fmt::print("output   {}: {} matrices, {} tokens\n", o.output.string(), report->matrices, report->tokens);
  fmt::print("time     {:.1f} s, {:.0f} tokens/s, peak memory {}\n", report->seconds,
             static_cast<double>(report->tokens) / report->seconds, bytes_text(report->peak_memory_bytes));
  return {};
}

}  // namespace

void add_gradients(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand(
      "gradients", "Collect what a model's answers depend on, to quantize by (beside calibration)");
  sub->footer(
      "Example:\n"
      "  narrow gradients model-f32.gguf --text wiki.txt code.txt -o gradients.gguf\n"
      "  narrow quantize model-f32.gguf -o small.gguf --type q4_0 --method auto+norms --calib wiki.txt "
      "code.txt "
      "--gradients gradients.gguf");
  auto args = std::make_shared<GradientOptions>();
  GradientOptions& o = *args;
  sub->add_option("source,--source", o.source,
                  "The model in full precision: GGUF file or Hugging Face folder")
      ->required();
  sub->add_option("--text", o.texts, "UTF-8 texts, or .jsonl with conversations")->required();
  sub->add_option("-o,--output", o.output, "GGUF file to write")->required();
  sub->add_option("--ctx", o.n_ctx, "Tokens per window, at most 512")->capture_default_str();
  sub->add_option("--tokens", o.max_tokens, "Tokens of all texts together; 0: all there are")
      ->capture_default_str();
  sub->add_option("--seed", o.seed, "Of the model's answers")->capture_default_str();
  sub->add_option("--device", o.device, "cpu, cuda, cuda:1")->capture_default_str();
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

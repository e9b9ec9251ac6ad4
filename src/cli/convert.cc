#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

struct ConvertArgs {
  ConvertOptions options;
  std::string split_size;
};

Status run(ConvertArgs& a, const Context& context) {
  ConvertOptions& o = a.options;
  if (!a.split_size.empty()) {
    const auto bytes = parse_bytes("--split-max-size", a.split_size);
    if (!bytes.ok()) return bytes.error();
    o.split_max_bytes = *bytes;
  }
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = convert(o, *progress);
  if (!report.ok()) return report.error();
  for (const std::string& note : report->notes) fmt::print(stderr, "note: {}\n", note);
  for (const auto& f : report->files) fmt::print("wrote {}\n", f.string());
  fmt::print("{} tensors, {}\n", report->tensors, bytes_text(report->bytes));
  return {};
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("convert", "Between Hugging Face folders (safetensors) and GGUF");
  sub->footer(
      "Examples:\n"
      "  narrow convert SmolLM2-135M/ -o smollm2-bf16.gguf --type bf16\n"
      "  narrow convert model-q4_k_m.gguf -o model-f16.gguf --type f16\n"
      "  narrow convert model.gguf -o model-folder\n"
      "  narrow convert model-w8a8.gguf -o model-folder   (compressed-tensors)\n"
      "  narrow convert model-00001-of-00003.gguf -o merged.gguf");
  auto args = std::make_shared<ConvertArgs>();
  ConvertOptions& o = args->options;
  sub->add_option("source", o.source, "GGUF file or Hugging Face folder")->required();
  sub->add_option("-o,--output", o.output, "FILE.gguf, or a folder to make")->required();
  sub->add_option("-t,--type", o.type, "f32, f16 or bf16; left out: as stored");
  sub->add_option("--split-max-size", args->split_size,
                  "Split the output into parts of at most this size, e.g. 2G");
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/json_output.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

void print_report(const CalibrateReport& r) {
  if (!r.texts.empty()) {
    Table table({"text", ">tokens", ">used", ">dropped", ">windows"});
    std::int64_t available = 0, used = 0;
    for (const CalibrateReport::Text& t : r.texts) {
      table.add({t.name, std::to_string(t.available_tokens), std::to_string(t.used_tokens),
                 std::to_string(t.dropped_tokens), std::to_string(t.windows)});
      available += t.available_tokens;
      used += t.used_tokens;
    }
    fmt::print("{}", table.plain());
    const std::string asked = r.asked_tokens > 0 ? std::to_string(r.asked_tokens) : "all";
    fmt::print("tokens   {} asked for, {} there, {} used in {} windows of up to {}, {:.0f} tokens/s\n", asked,
               available, used, r.windows, r.window_tokens, r.tokens_per_s);
  }
  fmt::print("output   {}: {} matrices\n", r.output.string(), r.matrices);
  fmt::print("time     {:.1f} s, peak memory {}\n", r.seconds, bytes_text(r.peak_memory_bytes));
}

struct CalibrateArgs {
  CalibrateOptions options;
  std::string json;
  bool no_overwrite = false;
};

Status run(const CalibrateArgs& a, const Context& context) {
  CalibrateOptions o = a.options;
  o.overwrite = !a.no_overwrite;
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = calibrate(o, *progress);
  if (!report.ok()) return report.error();
  if (a.json != "-") print_report(*report);
  return a.json.empty() ? Status() : write_json(a.json, report->to_json());
}

}  // namespace

void add_calibrate(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand(
      "calibrate", "Collect what a model's matrices see on texts, to quantize by (an importance matrix)");
  sub->footer(
      "Examples:\n"
      "  narrow calibrate model-f16.gguf --text wiki.txt code.txt chats.jsonl -o stats.gguf --tokens 65536\n"
      "  narrow calibrate --merge a.gguf b.gguf -o both.gguf\n"
      "  narrow quantize model-f16.gguf -o small.gguf --type q4_0 --calib stats.gguf\n"
      "llama-quantize --imatrix reads the output, and --merge reads what llama-imatrix wrote.\n"
      "A .jsonl holds a conversation per line, {\"messages\": [{\"role\": ..., \"content\": ...}, ...]}.");
  auto args = std::make_shared<CalibrateArgs>();
  CalibrateOptions& o = args->options;
  sub->add_option("model", o.model, "GGUF file or Hugging Face folder to run");
  sub->add_option("--text", o.calibration.texts, "UTF-8 texts, or .jsonl with conversations");
  sub->add_option("-o,--output", o.output, "File to write")->required();
  sub->add_option("--ctx", o.calibration.n_ctx, "Tokens per window, at most 512")->capture_default_str();
  sub->add_option("--tokens", o.calibration.max_tokens, "Tokens of all texts together; 0: all there are")
      ->capture_default_str();
  sub->add_option("--merge", o.merge, "Statistics of earlier runs to add");
  sub->add_option("--format", o.format, "imatrix (GGUF), or dat as llama.cpp wrote before October 2025")
      ->capture_default_str();
  sub->add_flag("--no-overwrite", args->no_overwrite, "Refuse to replace an existing output");
  sub->add_option("--json", args->json, "Write the report as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/interrupt.h"
#include "cli/json_output.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

struct ReportArgs {
  ReportOptions options;
  std::filesystem::path output;
  std::string json;
};

void print_report(const Report& report) {
  Table table({"file", ">size", ">bpw", ">perplexity", ">KL", ">±", ">same top token", "front"});
  for (const ReportedModel& m : report.models()) {
    table.add({m.name, bytes_text(m.file_bytes), fmt::format("{:.3f}", m.bpw),
               fmt::format("{:.4f}", m.perplexity), fmt::format("{:.6f}", m.kl_mean),
               fmt::format("{:.6f}", m.kl_se), fmt::format("{:.2f} %", 100 * m.top1_agreement),
               m.on_front ? "yes" : ""});
  }
  fmt::print("{}", table.plain());
}

Status run(const ReportArgs& a, const Context& context) {
  if (a.output.empty() && a.json.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "no output given: say -o PAGE.html, or --json FILE for the numbers"};
  }
  if (a.options.text.empty()) {
    return Error{ErrorCode::kInvalidArgument, "report needs a text to measure on: give --text FILE"};
  }
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = make_report(a.options, *progress);
  if (!report.ok()) return report.error();
  if (!a.output.empty()) {
    if (const Status s = write_text_file(a.output, report->to_html()); !s.ok()) return s;
  }
  if (a.json != "-") {
    print_report(*report);
    if (!a.output.empty()) fmt::print("wrote {}\n", a.output.string());
  }
  return a.json.empty() ? Status() : write_json(a.json, report->to_json());
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("report", "Compare files made from one model, as a page with charts");
  sub->footer(
      "Example:\n"
      "  narrow report --ref model-f32.gguf --text wiki.test.raw --windows 16 model-*.gguf -o report.html\n"
      "The page shows size against KL divergence, the damage of every layer and tensor, the worst tokens, "
      "and\n"
      "which tensors deserve a larger type. It is one file that needs no network.");
  auto args = std::make_shared<ReportArgs>();
  ReportOptions& o = args->options;
  sub->add_option("models", o.models, "GGUF files or Hugging Face folders to compare")->required();
  sub->add_option("--ref", o.reference, "The model they were made from")->required();
  sub->add_option("--text", o.text, "UTF-8 text to measure on");
  sub->add_option(
      "--stats", o.statistics,
      "Importance matrix of the reference: weight errors then count by the inputs that meet them");
  sub->add_option("-o,--output", args->output, "Page to write");
  sub->add_option("--json", args->json, "Write the numbers as JSON to this file, or - for standard output");
  sub->add_option("--ctx", o.n_ctx, "Tokens per window")->capture_default_str();
  sub->add_option("--windows", o.windows, "Windows to measure; 0: all")->capture_default_str();
  sub->add_option("--worst", o.worst_tokens, "Worst tokens to list per file")->capture_default_str();
  sub->add_option("--tensor", o.tensors,
                  "Tensor to show histograms of; repeatable. Default: the most damaged")
      ->allow_extra_args(false);
  add_engine_options(*sub, o.engine);
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

#include <fmt/format.h>

#include <charconv>
#include <memory>

#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/json_output.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

struct BenchArgs {
  BenchOptions options;
  std::string prefill = "512", decode = "64";
  std::string json, csv;
};

// "512" or "128,512,2048".
Result<std::vector<std::int64_t>> parse_counts(std::string_view option, std::string_view text) {
  std::vector<std::int64_t> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::int64_t n = 0;
    const auto r = std::from_chars(text.data() + begin, text.data() + end, n);
    if (r.ec != std::errc() || r.ptr != text.data() + end || n < 0) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} '{}': not a list of token counts; write e.g. 512 or 128,512, and 0 to "
                               "leave the test out",
                               option, text)};
    }
    out.push_back(n);
    begin = end + 1;
  }
  return out;
}

void print_report(const BenchReport& r) {
  fmt::print("model    {} ({}, mostly {}, {:.2f} bpw, {})\n", r.model, r.architecture, r.type, r.bpw,
             bytes_text(r.size_bytes));
  fmt::print(
      "machine  {} threads, {}; reads {:.1f} GB/s from memory, {:.1f} GB/s over {} as the model is; {:.0f} "
      "G int8 operations/s\n",
      r.threads, r.isa, r.limits.memory_bytes_per_s / 1e9, r.limits.model_bytes_per_s / 1e9,
      bytes_text(r.limits.model_buffer_bytes), r.limits.int8_operations_per_s / 1e9);
  fmt::print("memory   peak {}, of it KV cache {}\n\n", bytes_text(r.peak_rss_bytes),
             bytes_text(r.cache_bytes));
  Table table({"test", ">tokens/s", ">spread", ">ms/token", ">limit", "set by", ">reached"});
  for (const BenchResult& b : r.results) {
    table.add({b.test, fmt::format("{:.1f}", b.tokens_per_s), fmt::format("{:.1f} %", 100 * b.spread),
               fmt::format("{:.3f}", b.ms_per_token), fmt::format("{:.0f}", b.limit_tokens_per_s), b.limit,
               fmt::format("{:.1f} %", 100 * b.of_limit)});
  }
  fmt::print("{}", table.plain());
}

Status write_results(const BenchArgs& a, const BenchReport& r) {
  if (a.json != "-" && a.csv != "-") print_report(r);
  if (a.csv == "-") fmt::print("{}", r.to_csv());
  if (!a.csv.empty() && a.csv != "-") {
    if (Status s = write_text_file(a.csv, r.to_csv()); !s.ok()) return s;
  }
  return a.json.empty() ? Status() : write_json(a.json, r.to_json());
}

Status run(BenchArgs& a, ProgressSink& progress) {
  if (a.json == "-" && a.csv == "-") {
    return Error{ErrorCode::kInvalidArgument,
                 "--json - and --csv - both want standard output: give one a file"};
  }
  auto prefill = parse_counts("--prefill", a.prefill);
  if (!prefill.ok()) return prefill.error();
  auto decode = parse_counts("--decode", a.decode);
  if (!decode.ok()) return decode.error();
  a.options.prefill = std::move(*prefill);
  a.options.decode = std::move(*decode);
  const auto report = bench(a.options, progress);
  return report.ok() ? write_results(a, *report) : report.status();
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("bench", "Measure tokens/s, and how near they are to what the machine could do");
  sub->footer(
      "Examples:\n"
      "  narrow bench model-q4_k_m.gguf\n"
      "  narrow bench model-q4_k_m.gguf --prefill 128,512,2048 --decode 0\n"
      "  narrow bench model-q4_k_m.gguf --decode 64 --depth 4096 --threads 4 --json -\n"
      "Tests: pp512 feeds 512 tokens at once (prefill), tg64 feeds 64 one by one (decode), @d4096 after "
      "4096\n"
      "tokens that are not timed, @b8 for 8 sequences together. The median is printed; spread is\n"
      "(fastest - slowest) / median. limit is what memory or int8 arithmetic allow.");
  auto args = std::make_shared<BenchArgs>();
  BenchOptions& o = args->options;
  sub->add_option("model", o.model, "GGUF file or Hugging Face folder to measure")->required();
  sub->add_option("--prefill", args->prefill, "Tokens fed at once; a list for several tests; 0: none")
      ->capture_default_str();
  sub->add_option("--decode", args->decode, "Tokens fed one by one; a list for several tests; 0: none")
      ->capture_default_str();
  sub->add_option("--depth", o.depth, "Tokens in the context before each test")->capture_default_str();
  sub->add_option("--batch", o.batch, "Sequences that decode together")->capture_default_str();
  sub->add_option("--repetitions", o.repetitions, "Timed runs of each test, after one that warms up")
      ->capture_default_str();
  add_engine_options(*sub, o.engine);
  sub->add_option("--json", args->json, "Write the result as JSON to this file, or - for standard output");
  sub->add_option("--csv", args->csv, "Write the result as CSV to this file, or - for standard output");
  sub->callback([args, &context] {
    const auto progress = make_progress(context);
    if (const Status s = run(*args, *progress); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

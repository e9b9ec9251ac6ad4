#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/json_output.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

using Json = nlohmann::ordered_json;

struct QuantizeArgs {
  QuantizeOptions options;
  std::vector<std::string> rules;
  std::string split_size, json;
  bool dry_run = false, no_search = false, no_overwrite = false;
};

// 'regex=type'; the type holds no '=', the expression may.
Result<TensorRule> parse_rule(const std::string& text) {
  const std::size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--tensor '{}': write it as 'regex=type', e.g. 'ffn_down=q6_k'", text)};
  }
  return TensorRule{text.substr(0, at), text.substr(at + 1)};
}

// What is about to happen, whoever asks: fallbacks and the true size must be seen before the work.
void print_summary(const QuantizeOptions& o, const QuantizePlan& p) {
  std::map<std::string, int> types, fallbacks;
  for (const PlannedTensor& t : p.tensors) {
    ++types[t.to_type];
    if (t.fallback) ++fallbacks[fmt::format("{} -> {}", t.reason, t.to_type)];
  }
  std::string counts;
  for (const auto& [type, n] : types) counts += fmt::format("{}{} x {}", counts.empty() ? "" : ", ", n, type);
  fmt::print(stderr, "{} -> {}: {}, {} tensors ({})\n", o.source.string(),
             o.output.empty() ? "(nowhere)" : o.output.string(), p.file_type_name, p.tensors.size(), counts);
  for (const RuleReport& r : p.rules) {
    fmt::print(stderr, "rule '{}={}': matches {} tensors, applied to {}\n", r.pattern, r.type, r.matched,
               r.applied);
  }
  for (const auto& [what, n] : fallbacks) fmt::print(stderr, "{} tensors: {}\n", n, what);
  fmt::print(stderr, "{:.1f} M weights at {:.3f} bpw: {} (source {}); peak memory at most {}; free disk {}\n",
             static_cast<double>(p.parameters) / 1e6, p.bpw, bytes_text(p.output_bytes),
             bytes_text(p.source_bytes), bytes_text(p.peak_memory_bytes), bytes_text(p.free_disk_bytes));
}

void print_plan(const QuantizePlan& p) {
  Table table({"tensor", "shape", "from", "to", ">size", "reason"});
  for (const PlannedTensor& t : p.tensors) {
    table.add({t.name, shape_text(t.shape), t.from_type, t.to_type, bytes_text(t.to_bytes), t.reason});
  }
  fmt::print("{}", table.plain());
}

Json plan_json(const QuantizePlan& p) {
  Json j = {{"type", p.file_type_name},
            {"parameters", p.parameters},
            {"bpw", p.bpw},
            {"source_bytes", p.source_bytes},
            {"output_bytes", p.output_bytes},
            {"peak_memory_bytes_estimate", p.peak_memory_bytes},
            {"free_disk_bytes", p.free_disk_bytes},
            {"fallbacks", p.fallbacks}};
  j["rules"] = Json::array();
  for (const RuleReport& r : p.rules) {
    j["rules"].push_back(
        {{"pattern", r.pattern}, {"type", r.type}, {"matched", r.matched}, {"applied", r.applied}});
  }
  j["tensors"] = Json::array();
  for (const PlannedTensor& t : p.tensors) {
    j["tensors"].push_back({{"name", t.name},
                            {"shape", t.shape},
                            {"from", t.from_type},
                            {"to", t.to_type},
                            {"bytes", t.to_bytes},
                            {"fallback", t.fallback},
                            {"reason", t.reason}});
  }
  return j;
}

Json report_json(const QuantizeReport& r) {
  Json j = plan_json(r.plan);
  j["files"] = Json::array();
  for (const auto& f : r.files) j["files"].push_back(f.string());
  j["seconds"] = r.seconds;
  j["peak_memory_bytes"] = r.peak_memory_bytes;
  j["losses"] = Json::array();
  for (const TensorLoss& l : r.losses) {
    j["losses"].push_back({{"name", l.name}, {"relative_rms", l.relative_rms}, {"sqnr_db", l.sqnr_db}});
  }
  return j;
}

std::string dump(const Json& j) { return j.dump(2, ' ', false, Json::error_handler_t::replace); }

void print_report(const QuantizeReport& r) {
  for (const auto& f : r.files) fmt::print("wrote {}\n", f.string());
  fmt::print("{}, {:.3f} bpw, in {:.1f} s, peak memory {}\n", bytes_text(r.plan.output_bytes), r.plan.bpw,
             r.seconds, bytes_text(r.peak_memory_bytes));
  std::vector<TensorLoss> worst = r.losses;
  std::stable_sort(worst.begin(), worst.end(),
                   [](const TensorLoss& a, const TensorLoss& b) { return a.relative_rms > b.relative_rms; });
  worst.resize(std::min<std::size_t>(3, worst.size()));
  for (const TensorLoss& l : worst) {
    fmt::print("largest loss: {}  relative RMS error {:.4f}, SQNR {:.1f} dB\n", l.name, l.relative_rms,
               l.sqnr_db);
  }
}

Status run(QuantizeArgs& a, const Context& context) {
  QuantizeOptions& o = a.options;
  o.search = !a.no_search;
  o.overwrite = !a.no_overwrite;
  for (const std::string& text : a.rules) {
    auto rule = parse_rule(text);
    if (!rule.ok()) return rule.error();
    o.rules.push_back(std::move(*rule));
  }
  if (!a.split_size.empty()) {
    const auto bytes = parse_bytes("--split-max-size", a.split_size);
    if (!bytes.ok()) return bytes.error();
    o.split_max_bytes = *bytes;
  }
  if (o.output.empty() && !a.dry_run) {
    return Error{ErrorCode::kInvalidArgument,
                 "no output given: say -o FILE.gguf (or --dry-run to see the plan)"};
  }
  const auto plan = plan_quantization(o);
  if (!plan.ok()) return plan.error();
  print_summary(o, *plan);
  if (a.dry_run) {
    if (a.json != "-") print_plan(*plan);
    return a.json.empty() ? Status() : write_json(a.json, dump(plan_json(*plan)));
  }
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = quantize(o, *progress);
  if (!report.ok()) return report.error();
  if (a.json != "-") print_report(*report);
  return a.json.empty() ? Status() : write_json(a.json, dump(report_json(*report)));
}

}  // namespace

void add_quantize(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("quantize", "Write a model in fewer bits per weight");
  sub->footer(
      "Examples:\n"
      "  narrow quantize model-f16.gguf -o model-q4_k_m.gguf --type q4_k_m\n"
      "  narrow quantize SmolLM2-135M/ -o small.gguf --type q4_k_m --tensor 'ffn_down=q6_k' --output-type "
      "q8_0\n"
      "  narrow quantize model-f16.gguf --type q3_k_m --dry-run\n"
      "`narrow list mixes` shows the types. Rules: the first that matches a tensor's name wins, also over\n"
      "--embedding-type and --output-type.");
  auto args = std::make_shared<QuantizeArgs>();
  QuantizeOptions& o = args->options;
  sub->add_option("source", o.source, "GGUF file or Hugging Face folder")->required();
  sub->add_option("-o,--output", o.output, "GGUF file to write");
  sub->add_option("-t,--type", o.type, "Type or mix, e.g. q4_k_m")->required();
  sub->add_option("--method", o.method, "Algorithm; `narrow list methods` shows them")->capture_default_str();
  sub->add_flag("--pure", o.pure, "Every weight matrix in the type itself, no mix");
  sub->add_option("--tensor", args->rules,
                  "'regex=type': another type for the tensors whose name matches; repeatable")
      ->allow_extra_args(false);
  sub->add_option("--embedding-type", o.embedding_type, "Type of the token embedding");
  sub->add_option("--output-type", o.output_type, "Type of the output head");
  sub->add_flag("--strict", o.strict, "Refuse fallbacks for rows that a type cannot hold");
  sub->add_flag("--allow-requantize", o.allow_requantize, "Quantize weights that are quantized already");
  sub->add_flag("--no-overwrite", args->no_overwrite, "Refuse to replace an existing output");
  sub->add_flag("--dry-run", args->dry_run, "Show the plan, write nothing");
  sub->add_option("--split-max-size", args->split_size,
                  "Split the output into parts of at most this size, e.g. 2G");
  sub->add_flag("--no-search", args->no_search, "Plain absmax or min/max scales instead of searched ones");
  sub->add_option("--json", args->json,
                  "Write the plan or report as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

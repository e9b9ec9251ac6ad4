#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
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
  std::vector<std::filesystem::path> calib;
  std::string split_size, size, fit, json;
  bool dry_run = false, no_search = false, no_overwrite = false, no_sequential = false, fit_given = false;
};

constexpr std::int64_t kFitContext = 4096;  // of --fit without a number

// Statistics are binary (GGUF, or llama-imatrix's old form, which starts with a count), texts hold no NUL.
bool is_statistics(const std::filesystem::path& file) {
  std::string begin(4096, '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  begin.resize(static_cast<std::size_t>(std::max<std::streamsize>(0, in.gcount())));
  return begin.find('\0') != std::string::npos;
}

Status sort_calibration(const std::vector<std::filesystem::path>& files, CalibrationOptions& c) {
  for (const auto& file : files) {
    if (!is_statistics(file)) {
      c.texts.push_back(file);
      continue;
    }
    if (!c.stats.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--calib: {} and {} both hold statistics: merge them with `narrow calibrate`",
                               c.stats.string(), file.string())};
    }
    c.stats = file;
  }
  return {};
}

// The number after --fit, which may be left out.
Result<std::int64_t> parse_context(const std::string& text) {
  if (text.empty()) return kFitContext;
  std::int64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (r.ec == std::errc() && r.ptr == text.data() + text.size() && n > 0) return n;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("--fit '{}': not a number of tokens; write e.g. --fit 8192", text)};
}

int targets(const QuantizeOptions& o) {
  return (o.target_bytes > 0) + (o.target_bpw > 0) + (o.target_kl > 0) + (o.fit_context > 0);
}

// Everything but --type, or what stands in its place, may be said in any combination. With a target, a plan
// only lends its measurements.
Status check_goal(const QuantizeOptions& o) {
  const int goals = !o.type.empty() + targets(o) + (!o.plan.empty() && targets(o) == 0);
  if (goals == 1) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: exactly one of --type, --size, --bpw, --kl, --fit and --plan",
                           goals == 0 ? "say what to make" : "these say different things")};
}

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
  const std::string memory =
      p.peak_memory_bytes > 0 ? fmt::format("peak memory at most {}; ", bytes_text(p.peak_memory_bytes)) : "";
  fmt::print(stderr, "{:.1f} M weights at {:.3f} bpw: {} (source {}); {}free disk {}\n",
             static_cast<double>(p.parameters) / 1e6, p.bpw, bytes_text(p.output_bytes),
             bytes_text(p.source_bytes), memory, bytes_text(p.free_disk_bytes));
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
            {"peak_memory_bytes_estimate", p.peak_memory_bytes > 0 ? Json(p.peak_memory_bytes) : Json()},
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
  if (r.predicted_kl) j["predicted_kl"] = *r.predicted_kl;
  if (r.measured_kl) j["measured_kl"] = *r.measured_kl;
  j["losses"] = Json::array();
  for (const TensorLoss& l : r.losses) {
    Json loss = {{"name", l.name}, {"relative_rms", l.relative_rms}, {"sqnr_db", l.sqnr_db}};
    if (l.output_error) loss["output_error"] = *l.output_error;
    if (l.rounded_output_error) loss["rounded_output_error"] = *l.rounded_output_error;
    j["losses"].push_back(std::move(loss));
  }
  return j;
}

std::string dump(const Json& j) { return j.dump(2, ' ', false, Json::error_handler_t::replace); }

// With --compare-rounding: the matrix that gains least.
void print_comparison(const std::vector<TensorLoss>& losses) {
  double largest = 0;
  const TensorLoss* worst = nullptr;
  std::int64_t compared = 0;
  for (const TensorLoss& l : losses) {
    if (!l.output_error || !l.rounded_output_error || *l.rounded_output_error <= 0) continue;
    ++compared;
    const double ratio = *l.output_error / *l.rounded_output_error;
    if (worst == nullptr || ratio > largest) {
      worst = &l;
      largest = ratio;
    }
  }
  if (worst != nullptr) {
    fmt::print("output error beside rounding to nearest, over {} matrices: at most {:.3f} times ({})\n",
               compared, largest, worst->name);
  }
}

void print_report(const QuantizeReport& r) {
  for (const auto& f : r.files) fmt::print("wrote {}\n", f.string());
  fmt::print("{}, {:.3f} bpw, in {:.1f} s, peak memory {}\n", bytes_text(r.plan.output_bytes), r.plan.bpw,
             r.seconds, bytes_text(r.peak_memory_bytes));
  if (r.predicted_kl && r.measured_kl) {
    fmt::print("KL divergence on held-out windows of the texts: predicted {:.4f}, measured {:.4f}\n",
               *r.predicted_kl, *r.measured_kl);
  }
  print_comparison(r.losses);
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
  if (!a.size.empty()) {
    const auto bytes = parse_bytes("--size", a.size);
    if (!bytes.ok()) return bytes.error();
    o.target_bytes = *bytes;
  }
  if (a.fit_given) {
    const auto tokens = parse_context(a.fit);
    if (!tokens.ok()) return tokens.error();
    o.fit_context = *tokens;
  }
  if (const Status s = check_goal(o); !s.ok()) return s;
  if (const Status s = sort_calibration(a.calib, o.calibration); !s.ok()) return s;
  o.sequential = !a.no_sequential;
  if (o.output.empty() && !a.dry_run) {
    return Error{ErrorCode::kInvalidArgument,
                 "no output given: say -o FILE.gguf (or --dry-run to see the plan)"};
  }
  // A plan that has to be measured takes a while, and is told with the result.
  const bool known = targets(o) == 0;
  if (known || a.dry_run) {
    const auto plan = plan_quantization(o);
    if (!plan.ok()) return plan.error();
    print_summary(o, *plan);
    if (a.dry_run) {
      if (a.json != "-") print_plan(*plan);
      return a.json.empty() ? Status() : write_json(a.json, dump(plan_json(*plan)));
    }
  }
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = quantize(o, *progress);
  if (!report.ok()) return report.error();
  if (!known) print_summary(o, report->plan);
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
      "  narrow quantize model-f16.gguf -o small.gguf --type q4_0 --method auto --calib text.txt\n"
      "  narrow quantize model-f16.gguf -o small.gguf --size 90MB --calib text.txt --save-plan plan.json\n"
      "  narrow quantize model-f16.gguf -o small.gguf --type q5_k --pure --only 'ffn_down'\n"
      "  narrow quantize model-f16.gguf --type q3_k_m --dry-run\n"
      "`narrow list mixes` shows the types. Rules: the first that matches a tensor's name wins, also over\n"
      "--embedding-type and --output-type.");
  auto args = std::make_shared<QuantizeArgs>();
  QuantizeOptions& o = args->options;
  sub->add_option("source", o.source, "GGUF file or Hugging Face folder")->required();
  sub->add_option("-o,--output", o.output, "GGUF file to write");
  sub->add_option("-t,--type", o.type, "Type or mix, e.g. q4_k_m");
  sub->add_option("--size", args->size,
                  "Instead of --type: types tensor by tensor for this file size, e.g. 90MB");
  sub->add_option("--bpw", o.target_bpw, "Instead of --type: for this many bits per weight, e.g. 4.25")
      ->check(CLI::PositiveNumber);
  sub->add_option("--kl", o.target_kl,
                  "Instead of --type: the smallest file at this KL divergence, e.g. 0.05")
      ->check(CLI::PositiveNumber);
  CLI::Option* fit =
      sub->add_option("--fit", args->fit,
                      "Instead of --type: for this machine's free memory, with a cache of this many tokens "
                      "(4096)")
          ->expected(0, 1);
  sub->add_option(
      "--plan", o.plan,
      "Instead of --type: a plan that --save-plan wrote; with --size, --bpw, --kl or --fit only what it "
      "measured is used");
  sub->add_option("--save-plan", o.save_plan, "Write the plan as JSON, to be edited and run again");
  sub->add_option("--method", o.method, "Algorithm; `narrow list methods` shows them")->capture_default_str();
  sub->add_option("--calib", args->calib,
                  "Texts to calibrate on (.txt, or chats as .jsonl), or statistics of `narrow calibrate` or "
                  "llama-imatrix");
  sub->add_option("--calib-tokens", o.calibration.max_tokens, "Tokens of all texts together; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--calib-ctx", o.calibration.n_ctx, "Tokens of a window")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--gradients", o.gradients,
                  "What `narrow gradients` wrote of this model: quantize by what errors do to its answers");
  sub->add_option("--damping", o.damping,
                  "Of gptq, as a share of each diagonal entry; 0: chosen by the error on other tokens")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_flag("--no-sequential", args->no_sequential,
                "Calibrate on the unquantized model alone, not on the layers quantized before");
  sub->add_flag("--compare-rounding", o.compare_rounding,
                "Also measure each matrix's output error beside that of rounding to nearest (in --json too)");
  sub->add_option("--seed", o.seed, "Of methods that draw numbers")->capture_default_str();
  sub->add_flag("--pure", o.pure, "Every weight matrix in the type itself, no mix");
  sub->add_option("--tensor", args->rules,
                  "'regex=type': another type for the tensors whose name matches; repeatable")
      ->allow_extra_args(false);
  sub->add_option("--embedding-type", o.embedding_type, "Type of the token embedding");
  sub->add_option("--output-type", o.output_type, "Type of the output head");
  sub->add_flag("--strict", o.strict, "Refuse fallbacks for rows that a type cannot hold");
  sub->add_flag("--allow-requantize", o.allow_requantize, "Quantize weights that are quantized already");
  sub->add_flag("--resume", o.resume,
                "Go on with what an earlier run with the same options left unfinished, if there is any");
  sub->add_option(
      "--only", o.only,
      "Make only the tensors whose names match this expression again, in the existing output; all "
      "others are copied bit for bit");
  sub->add_flag("--no-overwrite", args->no_overwrite, "Refuse to replace an existing output");
  sub->add_flag("--dry-run", args->dry_run, "Show the plan, write nothing");
  sub->add_option("--split-max-size", args->split_size,
                  "Split the output into parts of at most this size, e.g. 2G");
  sub->add_option(
         "--outliers", o.outliers,
         "Of w8a8, w4a8 and their like: input columns of each product that stay fp32, at most; -1: as "
         "many as pay")
      ->capture_default_str();
  sub->add_flag("--no-search", args->no_search, "Plain absmax or min/max scales instead of searched ones");
  sub->add_option("--json", args->json,
                  "Write the plan or report as JSON to this file, or - for standard output");
  sub->callback([args, fit, &context] {
    args->fit_given = fit->count() > 0;
    if (const Status s = run(*args, context); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

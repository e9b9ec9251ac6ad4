#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "cli/command.h"
#include "cli/json_output.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

struct InspectArgs {
  std::filesystem::path model, reference;
  std::string tensor, json;
  std::vector<std::string> types;
  int bins = 24;
};

void print_model(const InspectReport& r) {
  fmt::print("{}{}{}\n", r.kind, r.architecture.empty() ? "" : ", architecture ", r.architecture);
  fmt::print("{} tensors, {:.3f} M weights, {:.3f} bpw, {} of tensors in {} of files\n\n", r.tensors.size(),
             static_cast<double>(r.parameters) / 1e6, r.bpw, bytes_text(r.tensor_bytes),
             bytes_text(r.file_bytes));
  Table metadata({"key", "value"});
  for (const auto& [key, value] : r.metadata) metadata.add({key, value});
  fmt::print("{}\n", metadata.plain());

  struct Sum {
    int tensors = 0;
    std::uint64_t bytes = 0, weights = 0;
  };
  std::map<std::string, Sum> sums;
  Table tensors({"tensor", "type", "shape", ">size", ">bpw"});
  for (const InspectedTensor& t : r.tensors) {
    tensors.add({t.name, t.type, shape_text(t.shape), bytes_text(t.bytes), fmt::format("{:.4g}", t.bpw)});
    Sum& s = sums[t.type];
    ++s.tensors;
    s.bytes += t.bytes;
    std::uint64_t n = 1;
    for (const std::int64_t d : t.shape) n *= static_cast<std::uint64_t>(d);
    s.weights += n;
  }
  fmt::print("{}\n", tensors.plain());
  Table types({"type", ">tensors", ">weights", ">size"});
  for (const auto& [type, s] : sums) {
    types.add({type, fmt::format("{}", s.tensors), fmt::format("{}", s.weights), bytes_text(s.bytes)});
  }
  fmt::print("{}", types.plain());
}

void print_tensor(const TensorStatistics& s, bool compared) {
  constexpr std::uint64_t kWidth = 50;
  fmt::print("{}: {}, {} values, {} zero, {} not finite\n", s.name, s.type, s.elements, s.zeros,
             s.non_finite);
  fmt::print("min {:.6g}  max {:.6g}  mean {:.6g}  standard deviation {:.6g}  kurtosis {:.4g}\n\n", s.min,
             s.max, s.mean, s.stddev, s.kurtosis);
  const std::uint64_t most =
      std::max<std::uint64_t>(1, *std::max_element(s.histogram.begin(), s.histogram.end()));
  const double width = (s.max - s.min) / static_cast<double>(s.histogram.size());
  for (std::size_t b = 0; b < s.histogram.size(); ++b) {
    // Bins with few values still show: weights' outliers live there.
    const std::uint64_t bar = (s.histogram[b] * kWidth + most - 1) / most;
    fmt::print("{:>12.5g}  {:<{}}  {}\n", s.min + width * static_cast<double>(b), std::string(bar, '#'),
               kWidth, s.histogram[b]);
  }
  if (s.errors.empty()) return;
  Table table({compared ? "against the reference" : "quantized to", ">bpw", ">relative RMS error",
               ">SQNR (dB)", ">largest error"});
  for (const TensorStatistics::Error& e : s.errors) {
    table.add({e.type, fmt::format("{:.4g}", e.bpw), fmt::format("{:.5f}", e.relative_rms),
               fmt::format("{:.2f}", e.sqnr_db), fmt::format("{:.4g}", e.max_abs)});
  }
  fmt::print("\n{}", table.plain());
}

Status run(const InspectArgs& a) {
  if (a.tensor.empty()) {
    if (!a.reference.empty() || !a.types.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   "--reference and --types look at one tensor: name it with --tensor"};
    }
    const auto report = inspect(a.model);
    if (!report.ok()) return report.error();
    if (a.json != "-") print_model(*report);
    return a.json.empty() ? Status() : write_json(a.json, report->to_json());
  }
  const auto statistics = inspect_tensor(a.model, a.tensor, a.bins, a.types, a.reference);
  if (!statistics.ok()) return statistics.error();
  if (a.json != "-") print_tensor(*statistics, !a.reference.empty());
  return a.json.empty() ? Status() : write_json(a.json, statistics->to_json());
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("inspect", "Show what is in a model file, or one tensor's values");
  sub->footer(
      "Examples:\n"
      "  narrow inspect model-q4_k_m.gguf\n"
      "  narrow inspect SmolLM2-135M/ --json -\n"
      "  narrow inspect model-f16.gguf --tensor blk.0.ffn_down.weight --types q4_0,q4_k,q6_k\n"
      "  narrow inspect model-q4_k_m.gguf --tensor blk.0.ffn_down.weight --reference model-f16.gguf\n"
      "Quantization errors are measured on at most 2 M values in evenly spaced rows.");
  auto args = std::make_shared<InspectArgs>();
  sub->add_option("model", args->model, "GGUF file, Hugging Face folder or .safetensors file")->required();
  sub->add_option("--tensor", args->tensor, "Statistics, histogram and quantization errors of this tensor");
  sub->add_option("--bins", args->bins, "Bars of the histogram")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  CLI::Option* types =
      sub->add_option("--types", args->types, "Types to try on the tensor; all that fit when left out")
          ->delimiter(',')
          ->allow_extra_args(false);
  sub->add_option("--reference", args->reference,
                  "Compare with the tensor of the same name in this model instead")
      ->excludes(types);
  sub->add_option("--json", args->json, "Write as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    if (const Status s = run(*args); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

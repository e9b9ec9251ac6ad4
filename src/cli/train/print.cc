#include <fmt/format.h>

#include "cli/json_output.h"
#include "cli/train/commands.h"

namespace narrow::cli {

Status print_training(const TrainReport& report, const std::string& json) {
  if (json != "-") {
    for (const auto& f : report.files) fmt::print("wrote {}\n", f.string());
    if (!report.validations.empty()) {
      const TrainValidation &first = report.validations.front(), &last = report.validations.back();
      if (first.kl > 0) fmt::print("held-out KL {:.5f} -> {:.5f}, ", first.kl, last.kl);
      fmt::print("{}cross-entropy {:.4f} -> {:.4f}\n", first.kl > 0 ? "" : "held-out ", first.ce, last.ce);
    }
    fmt::print("{} steps, {} tokens in {:.0f} s ({:.0f} tokens/s)\n",
               report.steps.empty() ? 0 : report.steps.back().step, report.tokens, report.seconds,
               report.tokens_per_s);
  }
  return json.empty() ? Status() : write_json(json, report.json);
}

}  // namespace narrow::cli

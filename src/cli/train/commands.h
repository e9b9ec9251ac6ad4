// The subcommands of narrow-train, one file each.
#pragma once

#include "cli/command.h"
#include "narrow/train.h"

namespace narrow::cli {

void add_qat(CLI::App& app, Context& context);
void add_finetune(CLI::App& app, Context& context);
void add_pretrain(CLI::App& app, Context& context);
void add_gradients(CLI::App& app, Context& context);

// Files, speed and what training changed, on standard output (nothing more than the JSON for --json -).
Status print_training(const TrainReport& report, const std::string& json);

}  // namespace narrow::cli

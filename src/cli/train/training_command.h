// What the three subcommands share: options from the lists, a recipe, --json, progress and the report.
#pragma once

#include <memory>
#include <string>

#include "cli/interrupt.h"
#include "cli/train/commands.h"
#include "cli/train/fields.h"

namespace narrow::cli {

template <class Options>
struct TrainingArgs {
  Options options;
  Status recipe;
  std::string json;
};

// `work(options, progress)` gives a Result of a TrainReport.
template <class Options, class Work>
Status run_training(const TrainingArgs<Options>& a, const Context& context, const Work& work) {
  if (!a.recipe.ok()) return a.recipe;
  const InterruptGuard guard;
  const auto progress = make_progress(context);
  const auto report = work(a.options, *progress);
  if (!report.ok()) return report.error();
  return print_training(*report, a.json);
}

// Adds the options; `run(args)` is the subcommand's callback.
template <class Options, class Run>
void add_training(CLI::App& sub, Context& context, const std::shared_ptr<TrainingArgs<Options>>& args,
                  Run run) {
  add_fields(sub, args->options, args->recipe);
  sub.add_option("--json", args->json, "Write the report as JSON to this file, or - for standard output");
  sub.callback([args, run, &context] {
    if (const Status s = run(*args); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli

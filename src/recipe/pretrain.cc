#include "recipe/fresh_model.h"
#include "recipe/options.h"
#include "recipe/processes.h"
#include "recipe/run.h"
#include "recipe/write_model.h"
#include "train/prepare.h"

namespace narrow::recipe {
namespace {

Result<TrainReport> run(const PretrainOptions& o, ProgressSink& progress) {
  if (o.config.empty() || o.output.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "say which config.json describes the model, and where the result goes (-o)");
  }
  prepare_torch();
  NARROW_ASSIGN(const at::Device asked, device_named(o.loop.device));
  NARROW_ASSIGN(const at::ScalarType dtype, dtype_named(o.loop.dtype));
  NARROW_ASSIGN(const Processes processes, Processes::join(asked));
  const at::Device device = processes.device();
  NARROW_ASSIGN(const FreshModel fresh, fresh_model(o.config, o.tokenizer));
  const nlohmann::ordered_json recipe = to_json(o, true);
  NARROW_ASSIGN(const train::TrainerOptions options,
                trainer_options(o.loop, {0, 1, 1}, o.output, recipe, processes.rank(), processes.world()));
  const std::filesystem::path tokenizer = o.tokenizer.empty() ? o.config.parent_path() : o.tokenizer;
  NARROW_ASSIGN(const train::Dataset data, training_data(text_options(o.loop), *fresh.tokenizer, tokenizer,
                                                         fresh.source->config(), progress));
  NARROW_ASSIGN(const auto model, train::Decoder::create_random(fresh.source->config(), o.loop.seed, dtype));
  NARROW_ASSIGN(const auto frozen, frozen_names(o.loop, nullptr));
  train::train_weights(*model, frozen);
  model->set_checkpointing(o.loop.checkpointing);
  model->to(device);
  NARROW_ASSIGN(const auto trainer,
                train::Trainer::create(*model, nullptr, data, options, processes.group()));
  NARROW_ASSIGN(const train::TrainerReport trained, trainer->run(progress));
  TrainReport report;
  fill(trained, report);
  if (!processes.leads()) return report;
  model->to(at::kCPU);
  NARROW_ASSIGN(report.files, write_model(*model, fresh.source, o.output, o.type, recipe, progress));
  std::error_code ec;
  std::filesystem::remove(options.checkpoint, ec);
  NARROW_TRY(finish_report("Pretraining", recipe, o.loop, report));
  return report;
}

}  // namespace
}  // namespace narrow::recipe

namespace narrow {

Result<TrainReport> pretrain(const PretrainOptions& options, ProgressSink& progress) {
  return recipe::guarded([&] { return recipe::run(options, progress); });
}

}  // namespace narrow

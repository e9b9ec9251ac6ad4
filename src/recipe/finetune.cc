#include <set>

#include "recipe/options.h"
#include "recipe/processes.h"
#include "recipe/run.h"
#include "recipe/write_model.h"
#include "train/prepare.h"

namespace narrow::recipe {
namespace {

using Source = std::shared_ptr<const model::ModelSource>;

Status check(const FinetuneOptions& o) {
  const auto bad = [](const std::string& what) {
    return make_error(ErrorCode::kInvalidArgument, "{}", what);
  };
  if (o.source.empty() || o.output.empty())
    return bad("say which model to train and where the result goes (-o)");
  static const std::set<std::string> kTrain = {"all", "lora", "norms"};
  if (!kTrain.contains(o.train)) return bad(fmt::format("--train '{}': all, lora or norms", o.train));
  if (o.kl_weight > 0 && o.teacher.empty()) return bad("--kl-weight needs a model to distil from: --teacher");
  return {};
}

Status choose_weights(const FinetuneOptions& o, train::Decoder& model) {
  std::function<bool(const std::string&)> also;
  if (o.train == "norms") {
    also = [&model](const std::string& name) { return model.weight(name).dim() >= 2; };
  }
  NARROW_ASSIGN(const auto frozen, frozen_names(o.loop, also));
  if (o.train != "lora") {
    train::train_weights(model, frozen);
    return {};
  }
  train::train_weights(model, [](const std::string&) { return true; });
  NARROW_ASSIGN(const train::LoraSpec lora, lora_spec(o.lora, o.loop, frozen));
  return train::add_loras(model, lora);
}

Result<TrainReport> run(const FinetuneOptions& o, ProgressSink& progress) {
  NARROW_TRY(check(o));
  prepare_torch();
  NARROW_ASSIGN(const at::Device asked, device_named(o.loop.device));
  NARROW_ASSIGN(const at::ScalarType dtype, dtype_named(o.loop.dtype));
  NARROW_ASSIGN(const Processes processes, Processes::join(asked));
  const at::Device device = processes.device();
  NARROW_ASSIGN(const Source source, model::ModelSource::open(o.source));
  const nlohmann::ordered_json recipe = to_json(o, true);
  NARROW_ASSIGN(const train::TrainerOptions options,
                trainer_options(o.loop, {o.kl_weight, o.ce_weight, o.temperature}, o.output, recipe,
                                processes.rank(), processes.world()));
  NARROW_ASSIGN(const train::Dataset data,
                training_data(text_options(o.loop), o.source, source->config(), progress));
  NARROW_ASSIGN(const auto model, train::Decoder::create(*source, dtype));
  NARROW_TRY(choose_weights(o, *model));
  model->set_checkpointing(o.loop.checkpointing);
  model->to(device);
  std::unique_ptr<train::Decoder> teacher;
  if (!o.teacher.empty()) {
    NARROW_ASSIGN(const Source from, model::ModelSource::open(o.teacher));
    if (from->config().n_vocab != source->config().n_vocab) {
      return make_error(
          ErrorCode::kInvalidArgument, "{}: a vocabulary of {}, but {} in {}: a teacher needs the same one",
          o.teacher.string(), from->config().n_vocab, source->config().n_vocab, o.source.string());
    }
    NARROW_ASSIGN(teacher, train::Decoder::create(*from, dtype));
    teacher->to(device);
  }
  NARROW_ASSIGN(const auto trainer,
                train::Trainer::create(*model, teacher.get(), data, options, processes.group()));
  NARROW_ASSIGN(const train::TrainerReport trained, trainer->run(progress));
  TrainReport report;
  fill(trained, report);
  if (!processes.leads()) return report;
  model->to(at::kCPU);
  model->merge_loras();
  NARROW_ASSIGN(report.files, write_model(*model, source, o.output, o.type, recipe, progress));
  std::error_code ec;
  std::filesystem::remove(options.checkpoint, ec);
  NARROW_TRY(finish_report("Fine-tuning", recipe, o.loop, report));
  return report;
}

}  // namespace
}  // namespace narrow::recipe

namespace narrow {

Result<TrainReport> finetune(const FinetuneOptions& options, ProgressSink& progress) {
  return recipe::guarded([&] { return recipe::run(options, progress); });
}

}  // namespace narrow

// What qat, finetune and pretrain share: from the options of a loop to a trainer, and from its report to
// files.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "narrow/progress.h"
#include "narrow/train.h"
#include "recipe/training_text.h"
#include "train/lora.h"
#include "train/trainer.h"

namespace narrow::recipe {

// The loop's options as the trainer wants them. kInvalidArgument names the option.
Result<train::TrainerOptions> trainer_options(const TrainLoop& loop, const train::LossOptions& loss,
                                              const std::filesystem::path& output,
                                              nlohmann::ordered_json recipe, std::int64_t rank,
                                              std::int64_t world);

// "cpu", "cuda", "cuda:1". kUnsupported where this libtorch has none.
Result<at::Device> device_named(const std::string& name);
Result<at::ScalarType> dtype_named(const std::string& name);

// True for names that loop.freeze finds, or `also` (may be null) says.
Result<std::function<bool(const std::string&)>> frozen_names(const TrainLoop& loop,
                                                             std::function<bool(const std::string&)> also);

// The loop's texts and how they are cut.
TrainingTextOptions text_options(const TrainLoop& loop);

// Which matrices get a low-rank update: those that options.match finds (where it is empty, those of
// layers) and that are not frozen. kInvalidArgument: a bad pattern.
Result<train::LoraSpec> lora_spec(const LoraOptions& options, const TrainLoop& loop,
                                  const std::function<bool(const std::string&)>& is_frozen);

// Sets torch's threads to narrow's, and what makes runs repeatable.
void prepare_torch();

// What the trainer measured, in the report's words.
void fill(const train::TrainerReport& from, TrainReport& to);

// report.json, and loop.report's page: the loss and the validation curve.
Status finish_report(const std::string& title, const nlohmann::ordered_json& recipe, const TrainLoop& loop,
                     TrainReport& report);

// Everything that torch may throw, as an Error.
template <class F>
auto guarded(F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory,
                      "out of memory: use a smaller --micro-batch, or --checkpointing");
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = what.find("alloc") != std::string::npos;
    return make_error(memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal, "libtorch: {}",
                      what.substr(0, what.find('\n')));
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kInternal, "unexpected: {}", e.what());
  }
}

}  // namespace narrow::recipe
